//! A training that was stopped or killed anywhere goes on from its state to the same bits.

use super::{labels, open};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use uspx_distill::{DistilRequest, DistillError, Distilled, Keep, Labels, distil, recipe_teacher};
use uspx_domain::DistilRecipe;
use uspx_model::{NoProgress, Progress};

/// One whose later epochs only cost, so that other attempts follow the first.
fn recipe() -> DistilRecipe {
    let open = DistilRecipe { learning_rate: 0.0, rank: 4, alpha: 64.0, ..recipe_teacher() };
    DistilRecipe { epochs: 4, batch_tokens: 256, teacher_weight: 0.0, ..open }
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("state")
    }
}

fn validation() -> &'static Labels {
    static FEW: OnceLock<Labels> = OnceLock::new();
    FEW.get_or_init(|| {
        let mut labels = labels().1.clone();
        labels.prompts.truncate(12);
        labels
    })
}

fn trained(
    train: &Labels,
    recipe: &DistilRecipe,
    (file, every): (&Path, Duration),
    progress: &dyn Progress,
) -> Result<Distilled, DistillError> {
    let (train, validation) = (std::slice::from_ref(train), std::slice::from_ref(validation()));
    let keep = Some(Keep { file, every });
    let request = DistilRequest { keep, ..DistilRequest::new(train, validation, recipe) };
    distil(&mut open("student"), &request, progress)
}

/// Few of the labels: each training takes a moment.
fn own() -> Labels {
    let mut labels = labels().0.clone();
    labels.prompts.truncate(24);
    labels
}

/// With the state in a file, written only where the end is asked for.
fn until(file: &Path, progress: &dyn Progress) -> Result<Distilled, DistillError> {
    trained(&own(), &recipe(), (file, Duration::MAX), progress)
}

/// What comes of it undisturbed, how often it tells of progress, and the first attempt's steps.
fn whole() -> (Distilled, u32, u32) {
    let (reports, last, first) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let count = |done: u64, _: u64| {
        reports.fetch_add(1, Ordering::Relaxed);
        let before = last.swap(done as u32, Ordering::Relaxed);
        if before > done as u32 {
            // Another attempt begins.
            first.fetch_max(before, Ordering::Relaxed);
        }
        true
    };
    let place = Place::new();
    let made = until(&place.file(), &count).unwrap();
    assert!(!place.file().exists());
    let first = first.into_inner();
    assert!(first > 0 && made.summary.steps > first + 3, "one attempt: {:?}", made.summary);
    assert_eq!(made.resumed, 0);
    (made, reports.into_inner(), first)
}

#[test]
fn stopped_anywhere_it_goes_on_to_the_same_bits() {
    let (whole, reports, first) = whole();
    let mut brought = Vec::new();
    // Steps, judgements, and all attempts are among them.
    for at in (1..reports).step_by(reports as usize / 4) {
        let (place, told) = (Place::new(), AtomicU32::new(0));
        let stop = |_: u64, _: u64| told.fetch_add(1, Ordering::Relaxed) < at;
        let error = until(&place.file(), &stop).unwrap_err();
        assert!(error.is_stopped(), "{error}");
        let made = until(&place.file(), &NoProgress).unwrap();
        assert!(made.adapter == whole.adapter, "stopped at {at}, it ends elsewhere");
        assert_eq!(made.summary, whole.summary);
        brought.push(made.resumed);
    }
    assert!(brought.is_sorted() && brought[brought.len() - 1] > first, "{brought:?}, {first}");
}

#[test]
fn killed_it_goes_on_from_what_was_on_the_disk() {
    let (whole, reports, _) = whole();
    let (place, image) = (Place::new(), Place::new());
    let told = AtomicU32::new(0);
    let kill = |_: u64, _: u64| {
        if told.fetch_add(1, Ordering::Relaxed) == reports / 2 {
            fs::copy(place.file(), image.file()).unwrap();
        }
        true
    };
    let made = trained(&own(), &recipe(), (&place.file(), Duration::ZERO), &kill).unwrap();
    assert!(made.adapter == whole.adapter);
    let made = until(&image.file(), &NoProgress).unwrap();
    assert!(made.adapter == whole.adapter && made.resumed > 5, "{}", made.resumed);
}

#[test]
fn a_state_of_another_training_or_a_damaged_one_is_refused() {
    let (place, told) = (Place::new(), AtomicU32::new(0));
    let stop = |_: u64, _: u64| told.fetch_add(1, Ordering::Relaxed) < 12;
    until(&place.file(), &stop).unwrap_err();
    let refused = |train: &Labels, recipe: &DistilRecipe| {
        let how = (&*place.file(), Duration::MAX);
        let error = trained(train, recipe, how, &NoProgress).unwrap_err();
        assert!(matches!(error, DistillError::State { .. }), "{error}");
        error.to_string()
    };
    let (own, other) = (&own(), DistilRecipe { seed: 9, ..recipe() });
    assert!(refused(own, &other).contains("of another training: its recipe differ"));
    let mut fewer = own.clone();
    fewer.prompts.pop();
    assert!(refused(&fewer, &recipe()).contains("its labels differ"));
    let good = fs::read(place.file()).unwrap();
    let mut broken = good.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let long = [good.as_slice(), &[0; 3 << 20]].concat();
    for damaged in [&good[..good.len() / 2], b"?", &broken, &long] {
        fs::write(place.file(), damaged).unwrap();
        assert!(refused(own, &recipe()).contains("delete this one to train anew"));
    }
    fs::write(place.file(), good).unwrap();
    assert!(until(&place.file(), &NoProgress).unwrap().resumed > 0);
}

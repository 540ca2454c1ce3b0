//! A sparse autoencoder as a job: what comes back is what SAELens reads and is worth what it says; one
//! that was interrupted goes on, bit for bit.

use super::{models, prompts, task};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use uspx_domain::{FailureReason, Outcome, Prompt, Sae, SaeRecipe, SaeSummary, StoredFile, Work};
use uspx_model::{ModelError, NoProgress, Progress};
use uspx_sae::evaluate::EvaluateRequest;
use uspx_sae::{Place, Site, evaluate, saelens};
use uspx_worker::jobs::run;
use uspx_worker::planning::Machine;
use uspx_worker::product::{Blob, Inputs, Kept, Product};

const JUDGED: u32 = 8;

fn job() -> Sae<Prompt> {
    let recipe =
        SaeRecipe { features: 96, epochs: 4, batch: 64, buffer: 400, ..SaeRecipe::default() };
    Sae { prompts: prompts(40), judged: JUDGED, layer: 1, recipe }
}

/// A folder for scratch files and for the state of a training.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn kept(&self) -> PathBuf {
        self.0.path().join("kept")
    }

    fn run(&self, job: Sae<Prompt>, progress: &dyn Progress) -> Result<Product, FailureReason> {
        self.run_on(Machine::cpu(), job, progress)
    }

    fn run_on(
        &self,
        machine: Machine,
        job: Sae<Prompt>,
        progress: &dyn Progress,
    ) -> Result<Product, FailureReason> {
        let inputs = Inputs::new_in(self.0.path()).unwrap();
        let inputs = inputs.keeping(Kept { file: self.kept(), every: Duration::ZERO });
        let mut models = models(machine, self.0.path());
        let done = run(&task(Work::Sae(job)), &mut models, &inputs, progress);
        done.map(|(product, _)| product).map_err(|error| error.reason())
    }
}

/// The files as they would come out of the store, in a folder.
fn laid_out(product: &Product, into: &Path) -> SaeSummary {
    let Outcome::Sae { files, summary } = &product.outcome else { panic!("{product:?}") };
    for (StoredFile { path, blob }, made) in files.iter().zip(&product.blobs) {
        let Blob::File(file, own) = made else { panic!("in memory") };
        assert_eq!(own, blob);
        fs::copy(file, into.join(path)).unwrap();
    }
    *summary
}

/// The weights that a job comes to on a bench.
fn weights(bench: &Bench, job: Sae<Prompt>, progress: &dyn Progress) -> Vec<u8> {
    let (product, folder) = (bench.run(job, progress).unwrap(), tempfile::tempdir().unwrap());
    laid_out(&product, folder.path());
    fs::read(folder.path().join(saelens::WEIGHTS)).unwrap()
}

/// Counts steps and stops at one.
struct StopAt(u64, AtomicU64);

impl StopAt {
    fn new(step: u64) -> Self {
        Self(step, AtomicU64::new(0))
    }
}

impl Progress for StopAt {
    fn report(&self, done: u64, _: u64) -> uspx_model::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        if done >= self.0 { Err(ModelError::Stopped) } else { Ok(()) }
    }
}

#[test]
fn what_comes_back_is_what_saelens_reads_and_is_worth_what_it_says() {
    let (bench, folder) = (Bench::new(), tempfile::tempdir().unwrap());
    let summary = laid_out(&bench.run(job(), &NoProgress).unwrap(), folder.path());
    let (sae, about) = saelens::read(folder.path()).unwrap();
    let place = Place { layer: 1, site: Site::ResidPost };
    assert_eq!((about.place, about.skip), (Some(place), 0));
    let mut models = models(Machine::cpu(), bench.0.path());
    let teacher = task(Work::Sae(job())).model;
    about.check(teacher).unwrap();
    let opened = models.get(teacher, uspx_model::budget::Workload::Forward).unwrap();
    let judged = job().split().1.to_vec();
    assert_eq!(judged.len(), JUDGED as usize);
    let judged = opened.model.readable(&judged).unwrap();
    let request = EvaluateRequest {
        model: &opened.model,
        prompts: &judged,
        place,
        sae: &sae,
        batch_tokens: 300,
        skip: 0,
    };
    let found = evaluate(&request, &NoProgress).unwrap();
    let recovered = found.recovered(&found.zero);
    assert!((summary.recovered() - recovered).abs() < 1e-3, "{summary:?} {recovered}");
    assert!((0.3..1.0).contains(&recovered), "{recovered}");
    assert_eq!((summary.tokens, summary.dead as usize), (found.tokens, found.dead()));
    assert!(
        (7.5..=8.0).contains(&summary.l0),
        "a token may have fewer that are positive: {summary:?}"
    );
    let features = fs::read(folder.path().join("features.json")).unwrap();
    let features: serde_json::Value = serde_json::from_slice(&features).unwrap();
    assert!(features.as_array().unwrap().len() <= 96 && features[0]["bits"].is_number());
}

#[test]
fn a_training_that_was_interrupted_goes_on_bit_for_bit() {
    let all = StopAt::new(u64::MAX);
    let whole = weights(&Bench::new(), job(), &all);
    let bench = Bench::new();
    let stopped = bench.run(job(), &StopAt::new(60)).err();
    assert_eq!(stopped, Some(FailureReason::Stopped));
    let state = fs::read(bench.kept()).unwrap();
    let rest = StopAt::new(u64::MAX);
    assert_eq!(weights(&bench, job(), &rest), whole);
    let [rest, all] = [rest, all].map(|counted| counted.1.into_inner());
    assert!(rest + 40 < all, "it began anew: {rest} reports where all are {all}");
    // A damaged state, and one of another training, are no state.
    for damaged in [state[..state.len() / 2].to_vec(), b"?".to_vec()] {
        fs::write(bench.kept(), damaged).unwrap();
        assert_eq!(weights(&bench, job(), &NoProgress), whole);
    }
    fs::write(bench.kept(), state).unwrap();
    let mut other = job();
    other.recipe.k = 7;
    assert_ne!(weights(&bench, other, &NoProgress), whole);
}

#[test]
fn a_streamed_teacher_s_is_worth_as_much() {
    let small = Machine { stream: true, memory: Some(200 << 20), ..Machine::cpu() };
    let worth = |machine| {
        let bench = Bench::new();
        let product = bench.run_on(machine, job(), &NoProgress).unwrap();
        laid_out(&product, tempfile::tempdir().unwrap().path()).recovered()
    };
    let (held, streamed) = (worth(Machine::cpu()), worth(small));
    assert!((held - streamed).abs() < 0.01, "{held} {streamed}");
}

#[test]
fn what_cannot_be_trained_says_who_is_to_blame() {
    let reason = |job| Bench::new().run(job, &NoProgress).err();
    assert_eq!(reason(Sae { layer: 99, ..job() }), Some(FailureReason::Senseless));
    assert_eq!(reason(Sae { judged: 40, ..job() }), Some(FailureReason::NoPromptLeft));
    let mut none = job();
    none.recipe.k = 97;
    assert_eq!(reason(none), Some(FailureReason::Senseless));
    let narrow = Machine { memory: Some(165 << 20), ..Machine::cpu() };
    let mut large = job();
    large.recipe.features = 1 << 20;
    let refused = Bench::new().run_on(narrow, large, &NoProgress).err();
    assert_eq!(refused, Some(FailureReason::NoMemory), "it was planned for");
}

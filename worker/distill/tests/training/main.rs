//! Training on the shipped student: it learns, it is deterministic, and its adapter survives the
//! trip through a file.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod interrupted;
mod masked;
mod on_policy;
mod sampled;
mod together;

use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use uspx_distill::{
    DistilRequest, DistillError, Keeping, Labels, distil, load_adapter, lora, make_labels,
    merged_weights, recipe_teacher,
};
use uspx_domain::{DistilLoss, DistilLossRow, DistilRecipe, Fingerprint, Prompt, parse_prompts};
use uspx_model::batch::Batch;
use uspx_model::chat::Bounds;
use uspx_model::checkpoint::Checkpoint;
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, ModelError, NoProgress, Placement};

fn assets(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets").join(path)
}

fn open(which: &str) -> LoadedModel {
    LoadedModel::open(&assets("nano").join(which), Placement::floats(DType::F32, &Device::Cpu))
        .unwrap()
}

fn prompts() -> Vec<Prompt> {
    let text = std::fs::read_to_string(assets("prompts/cli-train.jsonl")).unwrap();
    parse_prompts(&text, false).unwrap().prompts
}

fn labels() -> &'static (Labels, Labels) {
    static LABELS: OnceLock<(Labels, Labels)> = OnceLock::new();
    LABELS.get_or_init(|| {
        let (teacher, prompts) = (open("teacher"), prompts());
        let label = |p: &[Prompt]| {
            let together = (Bounds::answer(16), usize::MAX);
            make_labels(&teacher, p, None, Keeping::Likeliest(16), together, &NoProgress).unwrap().0
        };
        (label(&prompts[..96]), label(&prompts[1900..1940]))
    })
}

fn short() -> DistilRecipe {
    DistilRecipe { rank: 4, alpha: 8.0, epochs: 2, batch_tokens: 512, ..recipe_teacher() }
}

/// Judged on what it learns from: so few prompts can only be learned by heart.
fn trained() -> (LoadedModel, Vec<u8>, uspx_domain::TrainingSummary) {
    let train = std::slice::from_ref(&labels().0);
    let mut student = open("student");
    let recipe = short();
    let request = DistilRequest::new(train, train, &recipe);
    let made = distil(&mut student, &request, &NoProgress).unwrap();
    (student, made.adapter, made.summary)
}

fn logits(model: &LoadedModel) -> Vec<f32> {
    let sequences = model.readable(&prompts()[..3]).unwrap().sequences;
    let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
    let frame = model.transformer.frame(&batch).unwrap();
    let x = model.transformer.forward(&batch, &frame, &mut NoTaps).unwrap();
    model
        .transformer
        .logits(&x, &batch.predicting)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3)
}

#[test]
fn the_student_learns_and_its_adapter_survives_file_and_merge() {
    let (student, bytes, summary) = trained();
    assert!(summary.after < summary.before - 0.1, "{summary:?}");
    assert!(summary.best_epoch > 0 && summary.steps > 0);
    let want = logits(&student);
    assert!(!close(&want, &logits(&open("student"))));

    let mut other = open("student");
    let info = load_adapter(&mut other, &bytes).unwrap();
    assert_eq!((info.peft.r, info.peft.lora_alpha, info.base), (4, 8.0, student.fingerprint));
    assert!(close(&want, &logits(&other)));

    let merged = Checkpoint::in_memory(merged_weights(&student).unwrap());
    let folder = assets("nano/student");
    let merged = LoadedModel::with_weights(
        &folder,
        merged,
        Placement::floats(DType::F32, &Device::Cpu),
        student.fingerprint,
    )
    .unwrap();
    assert!(close(&want, &logits(&merged)));

    lora::detach(&mut other).unwrap();
    assert!(close(&logits(&open("student")), &logits(&other)));
}

/// Trains on what it is judged by.
fn trained_by(recipe: DistilRecipe, labels: &Labels) -> (Vec<u8>, uspx_domain::TrainingSummary) {
    let train = std::slice::from_ref(labels);
    let request = DistilRequest::new(train, train, &recipe);
    let made = distil(&mut open("student"), &request, &NoProgress).unwrap();
    (made.adapter, made.summary)
}

#[test]
fn every_loss_teaches_and_each_another_student() {
    let all: Vec<Vec<u8>> = DistilLoss::ALL
        .iter()
        .map(|loss| {
            let recipe = DistilRecipe { loss: *loss, teacher_weight: 0.5, ..short() };
            let (bytes, summary) = trained_by(recipe, &labels().0);
            assert!(summary.after < summary.before - 0.1, "{loss}: {summary:?}");
            bytes
        })
        .collect();
    for (at, bytes) in all.iter().enumerate() {
        assert!(!all[..at].contains(bytes), "{} is as another", DistilLoss::ALL[at]);
    }
}

#[test]
fn where_the_teacher_says_nothing_every_loss_learns_the_text_alone() {
    let text = trained_by(DistilRecipe { teacher_weight: 0.0, ..short() }, &labels().0);
    let mut silent = labels().0.clone();
    silent.prompts.iter_mut().for_each(|prompt| prompt.tokens.clear());
    for loss in DistilLoss::ALL {
        for (weight, labels) in [(0.0, &labels().0), (1.0, &silent)] {
            let recipe = DistilRecipe { teacher_weight: weight, loss: *loss, ..short() };
            let (bytes, summary) = trained_by(recipe, labels);
            // Sums are in another order: steps differ by rounding at most.
            assert!((summary.after - text.1.after).abs() < 1e-3, "{loss}: {summary:?}");
            assert_eq!(bytes.len(), text.0.len());
        }
    }
}

#[test]
fn a_loss_of_a_later_release_is_refused() {
    static LATER: DistilLossRow = DistilLossRow { name: "later", help: "of a later release" };
    let train = std::slice::from_ref(&labels().0);
    let recipe = DistilRecipe { loss: DistilLoss::of(&LATER), ..short() };
    let request = DistilRequest::new(train, train, &recipe);
    let error = distil(&mut open("student"), &request, &NoProgress).unwrap_err();
    assert!(error.to_string().contains("cannot train by later: upgrade"), "{error}");
}

#[test]
fn equal_seeds_give_equal_adapters() {
    let ((_, one, first), (_, other, second)) = (trained(), trained());
    assert_eq!(first, second);
    assert!(one == other, "the adapters' bytes differ");
}

#[test]
fn an_adapter_of_another_base_or_a_damaged_one_is_refused() {
    let (_, bytes, _) = trained();
    let mut other = open("student");
    other.fingerprint = Fingerprint(uspx_domain::Digest::of(b"another"));
    assert!(matches!(load_adapter(&mut other, &bytes), Err(DistillError::OtherBase { .. })));
    let mut student = open("student");
    for keep in [0, 7, 100, bytes.len() - 4] {
        assert!(
            matches!(load_adapter(&mut student, &bytes[..keep]), Err(DistillError::Adapter(_))),
            "{keep} bytes"
        );
    }
    let mut broken = bytes.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(load_adapter(&mut student, &broken), Err(DistillError::Adapter(_))));
    assert!(
        student.transformer.linear(0, uspx_model::taps::Projection::Q).unwrap().adapter.is_none()
    );
}

#[test]
fn a_keeper_that_says_stop_is_obeyed_within_a_step() {
    let (train, validation) = labels();
    let (train, validation) = (std::slice::from_ref(train), std::slice::from_ref(validation));
    let (recipe, stop) = (short(), |done: u64, _: u64| done < 3);
    let request = DistilRequest::new(train, validation, &recipe);
    let error = distil(&mut open("student"), &request, &stop).unwrap_err();
    assert!(
        matches!(error, DistillError::Model(ModelError::Stopped))
            && error.is_stopped()
            && error.is_retryable()
    );
}

#[test]
fn what_cannot_be_done_is_refused() {
    let train = std::slice::from_ref(&labels().0);
    let refused = |train: &[Labels], validation: &[Labels], recipe: &DistilRecipe| {
        let request = DistilRequest::new(train, validation, recipe);
        distil(&mut open("student"), &request, &NoProgress).unwrap_err()
    };
    let empty = |error: DistillError| match error {
        DistillError::Empty(what) => what,
        other => panic!("{other}"),
    };
    assert_eq!(empty(refused(train, &[], &short())), "validation");
    assert_eq!(empty(refused(&[], train, &short())), "training");
    let none = DistilRecipe { epochs: 0, ..short() };
    assert!(matches!(refused(train, train, &none), DistillError::Recipe(_)));
    let wild = DistilRecipe { learning_rate: 1e30, epochs: 4, ..short() };
    let error = refused(train, train, &wild);
    assert!(matches!(error, DistillError::Diverged { .. }), "{error}");
}

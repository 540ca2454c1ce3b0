//! What each kind of work calls. Blobs come in as bytes and go out as bytes: nothing here sees a network.

use crate::error::JobError;
use crate::exports;
use crate::holdings::Opened;
use bytes::Bytes;
use std::collections::HashMap;
use uspx_distill::Labels;
use uspx_domain::{
    BlobRef, DistilRecipe, Fingerprint, LossRow, Mask, Outcome, PatchMethod, Prompt, Subject, Task, Unit, Work,
};
use uspx_model::chat::Bounds;
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, Pulse};
use uspx_probe::evaluate::{Against, evaluate};

/// The blobs that a task names, fetched and verified.
#[derive(Debug, Default)]
pub struct Inputs(pub HashMap<BlobRef, Bytes>);

impl Inputs {
    /// A blob's content.
    ///
    /// # Errors
    /// It was not fetched: a bug in [`needs`].
    pub fn get(&self, blob: &BlobRef) -> Result<&Bytes, JobError> {
        self.0.get(blob).ok_or_else(|| JobError::Task(format!("blob {} was not fetched", blob.digest)))
    }
}

/// What a job brought: the outcome, and the blobs to store before it is told.
#[derive(Debug)]
pub struct Product {
    /// The outcome.
    pub outcome: Outcome,
    /// Blobs that it names.
    pub blobs: Vec<Bytes>,
}

impl From<Outcome> for Product {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, blobs: Vec::new() }
    }
}

/// The blobs to fetch before a job can run.
pub fn needs(work: &Work) -> Vec<BlobRef> {
    match work {
        Work::Distil { train, validation, .. } => train.iter().chain(validation).copied().collect(),
        Work::Export { adapter, .. } => adapter.iter().copied().collect(),
        Work::Judge { subject: Subject::Adapted(blob), .. } => vec![*blob],
        Work::Judge { subject: Subject::Exported { files, .. }, .. } => files.iter().map(|f| f.blob).collect(),
        _ => Vec::new(),
    }
}

/// Does a task.
///
/// # Errors
/// Whatever kept it from being done.
pub fn run(
    task: &Task,
    models: &mut Opened,
    inputs: &Inputs,
    batch_tokens: usize,
    pulse: &dyn Pulse,
) -> Result<Product, JobError> {
    match &task.work {
        Work::Trace { prompts } => {
            let model = models.get(task.model)?;
            Ok(Outcome::Scores(uspx_probe::trace::trace(&model, prompts, batch_tokens, pulse)?).into())
        }
        Work::Patch { prompts, method, kinds, baseline } => {
            let model = models.get(task.model)?;
            let deposit = match method {
                PatchMethod::Exact => {
                    let shape = model.shape();
                    let units: Vec<Unit> = kinds.iter().flat_map(|k| shape.units(*k)).collect();
                    uspx_probe::exact_effects(&model, prompts, &units, batch_tokens, pulse)?
                }
                PatchMethod::Atp => {
                    uspx_probe::patch::attribution(&model, prompts, kinds, *baseline, batch_tokens, pulse)?
                }
            };
            Ok(Outcome::Scores(deposit).into())
        }
        Work::Ablate { prompts, cuts } => {
            let model = models.get(task.model)?;
            Ok(Outcome::Losses(uspx_probe::ablate::ablate(&model, prompts, cuts, batch_tokens, pulse)?).into())
        }
        Work::Label { prompts, mask, top_k, max_new_tokens } => {
            label(&*models.get(task.model)?, prompts, mask.as_ref(), (*top_k, *max_new_tokens), pulse)
        }
        Work::Distil { train, validation, recipe } => {
            distil(models.fresh(task.model)?, inputs, (train, validation), recipe, pulse)
        }
        Work::Export { adapter, calibration, format } => {
            let student = adapted(models, task.model, adapter.as_ref(), inputs)?;
            exports::write(&student, models.folder(task.model)?, calibration, *format, pulse)
        }
        Work::Judge { prompts, subject } => judge(task.model, subject, prompts, models, inputs, batch_tokens, pulse),
    }
}

fn label(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    (top_k, max_new_tokens): (u32, u32),
    pulse: &dyn Pulse,
) -> Result<Product, JobError> {
    let bounds = Bounds::answer(max_new_tokens as usize);
    let (labels, _) = uspx_distill::make_labels(teacher, prompts, mask, top_k, bounds, pulse)?;
    let blob = Bytes::from(labels.to_bytes()?);
    let outcome =
        Outcome::Labels { blob: BlobRef::to(&blob), prompts: labels.prompts.len() as u32, tokens: labels.tokens() };
    Ok(Product { outcome, blobs: vec![blob] })
}

fn distil(
    mut student: LoadedModel,
    inputs: &Inputs,
    (train, validation): (&[BlobRef], &[BlobRef]),
    recipe: &DistilRecipe,
    pulse: &dyn Pulse,
) -> Result<Product, JobError> {
    let read = |blobs: &[BlobRef]| -> Result<Vec<Labels>, JobError> {
        blobs.iter().map(|b| Ok(Labels::from_bytes(inputs.get(b)?)?)).collect()
    };
    let (train, validation) = (read(train)?, read(validation)?);
    let (adapter, summary) = uspx_distill::distil(&mut student, &train, &validation, recipe, pulse)?;
    let adapter = Bytes::from(adapter);
    Ok(Product { outcome: Outcome::Adapter { blob: BlobRef::to(&adapter), summary }, blobs: vec![adapter] })
}

/// The student with its adapter attached.
fn adapted(
    models: &Opened,
    model: Fingerprint,
    adapter: Option<&BlobRef>,
    inputs: &Inputs,
) -> Result<LoadedModel, JobError> {
    let mut student = models.fresh(model)?;
    if let Some(blob) = adapter {
        uspx_distill::load_adapter(&mut student, inputs.get(blob)?)?;
    }
    Ok(student)
}

fn judge(
    model: Fingerprint,
    subject: &Subject,
    prompts: &[Prompt],
    models: &mut Opened,
    inputs: &Inputs,
    batch_tokens: usize,
    pulse: &dyn Pulse,
) -> Result<Product, JobError> {
    let losses = |model: &LoadedModel| -> Result<LossRow, JobError> {
        Ok(evaluate(model, prompts, batch_tokens, &mut NoTaps, &Against::Nothing, pulse)?.losses)
    };
    let row = match subject {
        Subject::Model => losses(&*models.get(model)?)?,
        Subject::Adapted(blob) => losses(&adapted(models, model, Some(blob), inputs)?)?,
        Subject::Exported { format, files } => losses(&exports::open(*format, files, inputs, models.device())?)?,
    };
    Ok(Outcome::Losses(vec![row]).into())
}

//! What each kind of work calls. Blobs come in as bytes and go out as bytes: nothing here sees a network.

use crate::error::JobError;
use crate::exports;
use crate::holdings::Opened;
use bytes::Bytes;
use uspx_distill::{Labels, PromptLabels};
use uspx_domain::{
    BlobRef, Coverage, DistilRecipe, Fingerprint, Mask, Outcome, PatchMethod, Prompt, Subject, Task, Unit, Work,
};
use uspx_model::chat::Bounds;
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, Pulse};
use uspx_probe::evaluate::{Against, evaluate};

pub use crate::product::{Inputs, Product};

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
            let prompts = model.readable(prompts)?;
            let deposit = uspx_probe::trace::trace(&model, &prompts, batch_tokens, pulse)?;
            Ok(Product::measured(Outcome::Scores(deposit), prompts))
        }
        Work::Patch { prompts, method, kinds, baseline } => {
            let model = models.get(task.model)?;
            let prompts = model.readable(prompts)?;
            let deposit = match method {
                PatchMethod::Exact => {
                    let shape = model.shape();
                    let units: Vec<Unit> = kinds.iter().flat_map(|k| shape.units(*k)).collect();
                    uspx_probe::exact_effects(&model, &prompts, &units, batch_tokens, pulse)?
                }
                PatchMethod::Atp => {
                    uspx_probe::patch::attribution(&model, &prompts, kinds, *baseline, batch_tokens, pulse)?
                }
            };
            Ok(Product::measured(Outcome::Scores(deposit), prompts))
        }
        Work::Ablate { prompts, cuts } => {
            let model = models.get(task.model)?;
            let prompts = model.readable(prompts)?;
            let rows = uspx_probe::ablate::ablate(&model, &prompts, cuts, batch_tokens, pulse)?;
            Ok(Product::measured(Outcome::Losses(rows), prompts))
        }
        Work::Label { prompts, mask, top_k, max_new_tokens, max_reasoning_tokens } => {
            let bounds = Bounds { answer: *max_new_tokens as usize, reasoning: *max_reasoning_tokens as usize };
            label(&*models.get(task.model)?, prompts, mask.as_ref(), (*top_k, bounds), pulse)
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
    (top_k, bounds): (u32, Bounds),
    pulse: &dyn Pulse,
) -> Result<Product, JobError> {
    let (labels, skipped) = uspx_distill::make_labels(teacher, prompts, mask, top_k, bounds, pulse)?;
    let blob = Bytes::from(labels.to_bytes()?);
    let Coverage { answer_bytes, labelled_bytes } = coverage(&labels.prompts);
    let outcome = Outcome::Labels {
        blob: BlobRef::to(&blob),
        prompts: labels.prompts.len() as u32,
        tokens: labels.tokens(),
        answer_bytes,
        labelled_bytes,
    };
    Ok(Product { blobs: vec![blob], skipped, ..outcome.into() })
}

/// How much of the answers the teacher's tokens cover.
fn coverage(prompts: &[PromptLabels]) -> Coverage {
    let of = |p: &PromptLabels| Coverage { answer_bytes: p.answer.len() as u64, labelled_bytes: covered(p) };
    prompts.iter().map(of).fold(Coverage::default(), Coverage::and)
}

/// Bytes of an answer under at least one token; tokens that share a character count it once.
fn covered(prompt: &PromptLabels) -> u64 {
    let (mut bytes, mut reached) = (0, 0);
    for token in &prompt.tokens {
        let end = token.end.min(prompt.answer.len() as u32);
        bytes += u64::from(end.saturating_sub(token.start.max(reached)));
        reached = reached.max(end);
    }
    bytes
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
    let outcome = Outcome::Adapter { blob: BlobRef::to(&adapter), summary };
    Ok(Product { blobs: vec![adapter], ..outcome.into() })
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
    let losses = |model: &LoadedModel| -> Result<Product, JobError> {
        let prompts = model.readable(prompts)?;
        let row = evaluate(model, &prompts, batch_tokens, &mut NoTaps, &Against::Nothing, pulse)?.losses;
        Ok(Product::measured(Outcome::Losses(vec![row]), prompts))
    };
    match subject {
        Subject::Model => losses(&*models.get(model)?),
        Subject::Adapted(blob) => losses(&adapted(models, model, Some(blob), inputs)?),
        Subject::Exported { format, files } => losses(&exports::open(*format, files, inputs, models.device())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_distill::TokenLabel;

    fn labelled(answer: &str, spans: &[(u32, u32)]) -> PromptLabels {
        let token = |(start, end): &(u32, u32)| TokenLabel {
            piece: 0,
            start: *start,
            end: *end,
            log_prob: 0.0,
            top: vec![],
            tail: 0.0,
        };
        let prompt = Prompt { id: "p".into(), prompt: "x".into(), reference: None, system: None, tags: vec![] };
        PromptLabels {
            prompt,
            answer: answer.into(),
            ended: true,
            reasoning: None,
            tokens: spans.iter().map(token).collect(),
        }
    }

    #[test]
    fn coverage_counts_each_byte_of_an_answer_once() {
        let whole = labelled("ls -l", &[(0, 2), (2, 5), (5, 5)]);
        let shared = labelled("für", &[(0, 1), (1, 3), (1, 3), (3, 9)]);
        let none = labelled("unspelt", &[]);
        assert_eq!([&whole, &shared, &none].map(covered), [5, 4, 0]);
        let all = coverage(&[whole, shared, none]);
        assert_eq!(all, Coverage { answer_bytes: 16, labelled_bytes: 9 });
        assert_eq!(coverage(&[]), Coverage::default());
    }
}

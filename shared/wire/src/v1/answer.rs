//! An answer on its way back.

use super::deposit::{Deposit, LossRow};
use super::jobs::{File, stored};
use super::names::{known, name};
use super::part::Told;
use super::{all, is_zero, try_all};
use crate::{Flaw, Unread};
use serde::{Deserialize, Serialize};
use uspx_domain::{self as domain, BlobRef, SkipReason, TaskId, WorkerId};

#[derive(Serialize, Deserialize)]
pub(crate) struct Answer {
    task: TaskId,
    worker: WorkerId,
    outcome: Outcome,
    millis: u64,
    skipped: Vec<Skipped>,
    seams: u32,
}

one_of! {
    /// What came of a task.
    Outcome {
        Scores(Deposit) = "scores",
        Losses(Vec<LossRow>) = "losses",
        Labels(Labels) = "labels",
        Adapter(Adapter) = "adapter",
        Exported(Vec<File>) = "exported",
        Sae(Sae) = "sae",
        Told(Told) = "told",
        Failed(Failure) = "failed",
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Labels {
    blob: BlobRef,
    prompts: u32,
    tokens: u64,
    answer_bytes: u64,
    labelled_bytes: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    dreams: u32,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Adapter {
    blob: BlobRef,
    steps: u32,
    before: f32,
    after: f32,
    best_epoch: u32,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Sae {
    files: Vec<File>,
    steps: u64,
    tokens: u64,
    l0: f32,
    explained_variance: f32,
    dead: u32,
    clean: f32,
    grafted: f32,
    zero: f32,
    mean: f32,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Failure {
    kind: String,
    /// A reason's name. Any other text is passed over: it might quote a prompt.
    reason: String,
}

/// A prompt that was left out: the reason's name, and the numbers that it has.
#[derive(Serialize, Deserialize)]
struct Skipped {
    id: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agreeing: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    millinats: Option<u32>,
}

impl From<&domain::Answer> for Answer {
    fn from(answer: &domain::Answer) -> Self {
        Self {
            task: answer.task,
            worker: answer.worker.clone(),
            outcome: (&answer.outcome).into(),
            millis: answer.millis,
            skipped: all(&answer.skipped),
            seams: answer.seams,
        }
    }
}

impl TryFrom<Answer> for domain::Answer {
    type Error = Unread;
    fn try_from(answer: Answer) -> Result<Self, Unread> {
        let Answer { task, worker, outcome, millis, skipped, seams } = answer;
        Ok(Self {
            task,
            worker,
            outcome: outcome.try_into()?,
            millis,
            skipped: try_all(skipped)?,
            seams,
        })
    }
}

impl From<&domain::Outcome> for Outcome {
    fn from(outcome: &domain::Outcome) -> Self {
        match outcome {
            domain::Outcome::Scores(deposit) => Self::Scores(deposit.into()),
            domain::Outcome::Losses(rows) => Self::Losses(all(rows)),
            domain::Outcome::Labels { blob, prompts, tokens, dreams, coverage } => {
                let domain::Coverage { answer_bytes, labelled_bytes } = *coverage;
                Self::Labels(Labels {
                    blob: *blob,
                    prompts: *prompts,
                    tokens: *tokens,
                    answer_bytes,
                    labelled_bytes,
                    dreams: *dreams,
                })
            }
            domain::Outcome::Adapter { blob, summary } => {
                let domain::TrainingSummary { steps, before, after, best_epoch } = *summary;
                Self::Adapter(Adapter { blob: *blob, steps, before, after, best_epoch })
            }
            domain::Outcome::Exported { files } => Self::Exported(all(files)),
            domain::Outcome::Sae { files, summary } => Self::Sae(Sae::new(files, *summary)),
            domain::Outcome::Told { told, loss, epoch, left } => {
                Self::Told(Told::new(*told, *loss, (*epoch, *left)))
            }
            domain::Outcome::Failed(failure) => Self::Failed(Failure {
                kind: name(failure.kind),
                reason: failure.reason.name().to_owned(),
            }),
        }
    }
}

impl TryFrom<Outcome> for domain::Outcome {
    type Error = Unread;
    fn try_from(outcome: Outcome) -> Result<Self, Unread> {
        Ok(match outcome {
            Outcome::Scores(deposit) => Self::Scores(deposit.try_into()?),
            Outcome::Losses(rows) => Self::Losses(try_all(rows)?),
            Outcome::Labels(Labels {
                blob,
                prompts,
                tokens,
                answer_bytes,
                labelled_bytes,
                dreams,
            }) => {
                let coverage = domain::Coverage { answer_bytes, labelled_bytes };
                Self::Labels { blob, prompts, tokens, dreams, coverage }
            }
            Outcome::Adapter(Adapter { blob, steps, before, after, best_epoch }) => {
                let summary = domain::TrainingSummary { steps, before, after, best_epoch };
                Self::Adapter { blob, summary }
            }
            Outcome::Exported(files) => Self::Exported { files: stored(files) },
            Outcome::Sae(sae) => sae.into(),
            Outcome::Told(told) => told.into(),
            Outcome::Failed(Failure { kind, reason }) => {
                let reason = domain::FailureReason::of(&reason);
                Self::Failed(domain::Failure { kind: known(&kind)?, reason })
            }
            Outcome::Unknown => return Err(Unread::Unknown("an outcome")),
        })
    }
}

impl Sae {
    fn new(files: &[domain::StoredFile], summary: domain::SaeSummary) -> Self {
        let domain::SaeSummary {
            steps,
            tokens,
            l0,
            explained_variance,
            dead,
            clean,
            grafted,
            zero,
            mean,
        } = summary;
        let files = all(files);
        Self { files, steps, tokens, l0, explained_variance, dead, clean, grafted, zero, mean }
    }
}

impl From<Sae> for domain::Outcome {
    fn from(sae: Sae) -> Self {
        let Sae { files, steps, tokens, l0, explained_variance, dead, clean, grafted, zero, mean } =
            sae;
        let summary = domain::SaeSummary {
            steps,
            tokens,
            l0,
            explained_variance,
            dead,
            clean,
            grafted,
            zero,
            mean,
        };
        Self::Sae { files: stored(files), summary }
    }
}

impl From<&domain::Skipped> for Skipped {
    fn from(skipped: &domain::Skipped) -> Self {
        let (id, reason) = (skipped.id.clone(), skipped.reason.name().to_owned());
        let bare = Self {
            id,
            reason,
            tokens: None,
            context: None,
            agreeing: None,
            samples: None,
            millinats: None,
        };
        match skipped.reason {
            SkipReason::TooLong { tokens, context } => {
                Self { tokens: Some(tokens), context: Some(context), ..bare }
            }
            SkipReason::Unfinished { tokens } => Self { tokens: Some(tokens), ..bare },
            SkipReason::Inconsistent { agreeing, samples } => {
                Self { agreeing: Some(agreeing), samples: Some(samples), ..bare }
            }
            SkipReason::Unlikely { millinats } => Self { millinats: Some(millinats), ..bare },
            SkipReason::Empty
            | SkipReason::NoReference
            | SkipReason::Template
            | SkipReason::Tokenizer
            | SkipReason::Refused => bare,
        }
    }
}

impl TryFrom<Skipped> for domain::Skipped {
    type Error = Unread;
    fn try_from(skipped: Skipped) -> Result<Self, Unread> {
        let Skipped { id, reason, tokens, context, agreeing, samples, millinats } = skipped;
        let told = |number: Option<u32>| number.ok_or(Unread::from(Flaw::Fields));
        let reason = match reason.as_str() {
            "too_long" => SkipReason::TooLong { tokens: told(tokens)?, context: told(context)? },
            "unfinished" => SkipReason::Unfinished { tokens: told(tokens)? },
            "inconsistent" => {
                SkipReason::Inconsistent { agreeing: told(agreeing)?, samples: told(samples)? }
            }
            "unlikely" => SkipReason::Unlikely { millinats: told(millinats)? },
            "empty" => SkipReason::Empty,
            "no_reference" => SkipReason::NoReference,
            "template" => SkipReason::Template,
            "tokenizer" => SkipReason::Tokenizer,
            "refused" => SkipReason::Refused,
            _ => return Err(Unread::Unknown("a reason to leave a prompt out")),
        };
        Ok(Self { id, reason })
    }
}

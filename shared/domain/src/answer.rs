//! What a worker posts back. Never raw activations: sums, losses, and references to blobs.

use crate::{BlobRef, Skipped, Statistic, TaskId, Unit, WorkerId};
use serde::{Deserialize, Serialize};

/// The answer to one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Which task.
    pub task: TaskId,
    /// Who answers.
    pub worker: WorkerId,
    /// What came of it.
    pub outcome: Outcome,
    /// How long the work took, in milliseconds. For planning only; nothing that is decided rests on it.
    pub millis: u64,
    /// The task's prompts that the model cannot run, in the task's order. The outcome is about the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// Of the others, those whose whole text the model's tokenizer reads otherwise than in use; what is measured are the
    /// tokens in use. 0 for labels and training, and where an older worker does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seams: u32,
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Trace and patch: one value per prompt and unit.
    Scores(Deposit),
    /// Ablate: one row without a cut, then one per cut. Judge: one row.
    Losses(Vec<LossRow>),
    /// Label: the labels' blob.
    Labels {
        /// The blob.
        blob: BlobRef,
        /// Prompts labelled.
        prompts: u32,
        /// Tokens labelled.
        tokens: u64,
        /// UTF-8 bytes of the answers; 0 where an older worker does not say.
        #[serde(default, skip_serializing_if = "is_zero")]
        answer_bytes: u64,
        /// Bytes of them that tokens with probabilities cover; see [`Coverage`](crate::Coverage).
        #[serde(default, skip_serializing_if = "is_zero")]
        labelled_bytes: u64,
    },
    /// Distil: the adapter's blob.
    Adapter {
        /// The blob (safetensors).
        blob: BlobRef,
        /// How the training went.
        summary: TrainingSummary,
    },
    /// Export: the files of the student's folder.
    Exported {
        /// The files.
        files: Vec<StoredFile>,
    },
    /// It could not be done.
    Failed {
        /// Why, without any prompt's text.
        reason: String,
        /// Whether another try, elsewhere perhaps, may succeed.
        retryable: bool,
    },
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// A prompt and the number of its response tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokens {
    /// The prompt's id.
    pub id: String,
    /// Its response tokens.
    pub tokens: u32,
}

/// Scores of many units on many prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deposit {
    /// The prompts, in the order of the columns' values.
    pub prompts: Vec<PromptTokens>,
    /// One column per statistic and unit.
    pub columns: Vec<Column>,
}

/// One statistic of one unit on every prompt of the deposit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Which unit.
    pub unit: Unit,
    /// Which statistic.
    pub statistic: Statistic,
    /// One value per prompt.
    pub values: Vec<f32>,
}

/// Summed losses of a run, prompt by prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossRow {
    /// The prompts, in the order of `nats`.
    pub prompts: Vec<PromptTokens>,
    /// Negative log-likelihood of each prompt's response, in nats, summed over its tokens.
    pub nats: Vec<f32>,
    /// UTF-8 bytes of each prompt's reference.
    pub bytes: Vec<u32>,
}

/// How a training went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainingSummary {
    /// Optimiser steps taken.
    pub steps: u32,
    /// Validation loss before, nats per response token.
    pub before: f32,
    /// Validation loss of the adapter kept, nats per response token.
    pub after: f32,
    /// The epoch it was kept from, counted from 1 (0: never improved).
    pub best_epoch: u32,
}

/// A file of a folder, stored as a blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoredFile {
    /// Path within the folder, `/`-separated, no `..`.
    pub path: String,
    /// Its content.
    pub blob: BlobRef,
}

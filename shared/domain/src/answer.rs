//! What a worker posts back. Never raw activations: sums, losses, and references to blobs.

use crate::shape::is_zero;
use crate::{
    BlobRef, Coverage, Deposit, Failure, LossRow, SaeSummary, Skipped, TaskId, Told, WorkerId,
};
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
    /// How long the work took, in milliseconds. Nothing that is decided of models rests on it: it sizes tasks, and
    /// counts where students have a limit of machine time.
    pub millis: u64,
    /// The task's prompts that the model cannot run, in the task's order. The outcome is about the
    /// others.
    pub skipped: Vec<Skipped>,
    /// Of the others, those whose whole text the model's tokenizer reads otherwise than in use;
    /// what is measured are the tokens in use. 0 for labels and training.
    pub seams: u32,
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Estimates: statistics of units on prompts.
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
        /// New prompts labelled beside them.
        #[serde(default, skip_serializing_if = "is_zero")]
        dreams: u32,
        /// How much of the answers the labels cover.
        coverage: Coverage,
    },
    /// Distil, and the end of a training that machines share: the adapter's blob.
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
    /// Sae: the files of its folder, as SAELens reads it, and what it is worth.
    Sae {
        /// The files.
        files: Vec<StoredFile>,
        /// On the prompts that it was judged by.
        summary: SaeSummary,
    },
    /// Part: how far the machine came in the round.
    Told {
        /// The blob, and what it weighs.
        told: Told,
        /// Validation loss of the round's start, nats per response token, where the round begins a
        /// pass over the prompts and this machine is the first.
        loss: Option<f32>,
        /// The pass that the round belongs to, from 1.
        epoch: u32,
        /// Batches of the whole plan that are left after the round.
        left: u32,
    },
    /// It could not be done.
    Failed(Failure),
}

impl Outcome {
    /// The blobs that it names, which must be in the store before it is told.
    pub fn blobs(&self) -> Vec<BlobRef> {
        match self {
            Self::Labels { blob, .. } | Self::Adapter { blob, .. } => vec![*blob],
            Self::Told { told, .. } => vec![told.blob],
            Self::Exported { files } | Self::Sae { files, .. } => {
                files.iter().map(|f| f.blob).collect()
            }
            Self::Scores(_) | Self::Losses(_) | Self::Failed(_) => Vec::new(),
        }
    }
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

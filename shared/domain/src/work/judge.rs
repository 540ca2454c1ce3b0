//! Judging a model: its loss on prompts with references.

use super::Job;
use crate::{Asked, BlobRef, ExportFormat, Outcome, Refusal, StoredFile};
use serde::{Deserialize, Serialize};

/// The loss of a model on prompts with references.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge<P> {
    /// On these prompts.
    pub prompts: Vec<P>,
    /// Which model.
    pub subject: Subject,
}

/// Which model a judgement is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The task's model as it is (teacher or base student).
    Model,
    /// The task's model with an adapter merged.
    Adapted(BlobRef),
    /// An exported student: the files of its folder.
    Exported {
        /// Its format.
        format: ExportFormat,
        /// Its files.
        files: Vec<StoredFile>,
    },
}

impl<P> Judge<P> {
    pub(super) fn on<Q>(self, prompts: Vec<Q>) -> Judge<Q> {
        Judge { prompts, subject: self.subject }
    }
}

impl<P> Job<P> for Judge<P> {
    fn name(&self) -> &'static str {
        "judge"
    }

    fn prompts(&self) -> &[P] {
        &self.prompts
    }

    fn blobs(&self) -> Vec<BlobRef> {
        match &self.subject {
            Subject::Model => Vec::new(),
            Subject::Adapted(blob) => vec![*blob],
            Subject::Exported { files, .. } => files.iter().map(|f| f.blob).collect(),
        }
    }

    fn is_comparable(&self) -> bool {
        true
    }

    fn check(&self, asked: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal> {
        let Outcome::Losses(rows) = outcome else { return Err(Refusal::Kind("judge")) };
        asked.losses(rows, 1)
    }
}

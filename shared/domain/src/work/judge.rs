//! Judging a model: its loss on prompts with references, and whether its own answers are these.

use super::Job;
use crate::{Asked, BlobRef, ExportFormat, Outcome, Refusal, StoredFile};
use serde::{Deserialize, Serialize};

/// The loss of a model on prompts with references, and whether it answers with these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge<P> {
    /// On these prompts.
    pub prompts: Vec<P>,
    /// Which model.
    pub subject: Subject,
    /// Answers that it is to give itself, greedily.
    #[serde(default, skip_serializing_if = "Answers::is_none")]
    pub answers: Answers,
}

/// Bounds on the answer that a judged model gives to each prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Tokens of an answer; 0 asks for none.
    pub tokens: u32,
    /// Tokens of the reasoning before it.
    pub reasoning: u32,
}

impl Answers {
    /// Whether none are asked for.
    pub fn is_none(&self) -> bool {
        self.tokens == 0
    }
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
        Judge { prompts, subject: self.subject, answers: self.answers }
    }
}

impl<P> Job<P> for Judge<P> {
    /// Answers are made token by token: what a machine's speed at them is says nothing of losses.
    fn name(&self) -> &'static str {
        if self.answers.is_none() { "judge" } else { "answer" }
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
        asked.losses(rows, 1)?;
        rows.iter().try_for_each(|row| asked.answers(row, !self.answers.is_none()))
    }
}

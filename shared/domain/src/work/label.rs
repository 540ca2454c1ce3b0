//! Labels for a student to learn: the teacher's answers and token probabilities.

use super::Job;
use crate::{Asked, Mask, Outcome, Refusal};
use serde::{Deserialize, Serialize};

/// Answers and token probabilities for a student to learn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label<P> {
    /// On these prompts.
    pub prompts: Vec<P>,
    /// The teacher's mask, if its cost allows one.
    pub mask: Option<Mask>,
    /// Probabilities kept per token.
    pub top_k: u32,
    /// Bound on a generated answer, in tokens.
    pub max_new_tokens: u32,
    /// Bound on the reasoning before it, in tokens.
    pub max_reasoning_tokens: u32,
}

impl<P> Label<P> {
    /// Labels of the whole teacher, with the usual bounds.
    pub fn of(prompts: Vec<P>) -> Self {
        Self { prompts, mask: None, top_k: 32, max_new_tokens: 64, max_reasoning_tokens: 1024 }
    }

    pub(super) fn on<Q>(self, prompts: Vec<Q>) -> Label<Q> {
        let Self { mask, top_k, max_new_tokens, max_reasoning_tokens, .. } = self;
        Label { prompts, mask, top_k, max_new_tokens, max_reasoning_tokens }
    }
}

impl<P> Job<P> for Label<P> {
    fn name(&self) -> &'static str {
        "label"
    }

    fn prompts(&self) -> &[P] {
        &self.prompts
    }

    /// Every prompt is either labelled or skipped.
    fn check(&self, asked: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal> {
        let Outcome::Labels { prompts, coverage, .. } = outcome else {
            return Err(Refusal::Kind("label"));
        };
        asked.count("labelled prompts", *prompts as usize, asked.ids.len())?;
        let fits = coverage.labelled_bytes <= coverage.answer_bytes;
        fits.then_some(()).ok_or(Refusal::Value("the number of labelled bytes"))
    }
}

//! Labels for a student to learn: the teacher's answers and token probabilities.

use super::{Answering, Job};
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
    /// New prompts beside these.
    #[serde(default, skip_serializing_if = "Dreams::is_none")]
    pub dreams: Dreams,
    /// Which answers are learned.
    #[serde(default, skip_serializing_if = "Answering::is_usual")]
    pub answering: Answering,
    /// Seed of the answers that are sampled; 0 where none are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seed: u64,
}

fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

/// New prompts of the same kind, which the teacher makes up and answers itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dreams {
    /// How often each prompt may give rise to one.
    pub rounds: u32,
    /// Seed of what is drawn.
    pub seed: u64,
}

impl Dreams {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        self.rounds == 0
    }
}

impl<P> Label<P> {
    /// Labels of the whole teacher, with the usual bounds.
    pub fn of(prompts: Vec<P>) -> Self {
        Self {
            prompts,
            mask: None,
            top_k: 32,
            max_new_tokens: 64,
            max_reasoning_tokens: 1024,
            dreams: Dreams::default(),
            answering: Answering::default(),
            seed: 0,
        }
    }

    pub(super) fn on<Q>(self, prompts: Vec<Q>) -> Label<Q> {
        Label {
            prompts,
            mask: self.mask,
            top_k: self.top_k,
            max_new_tokens: self.max_new_tokens,
            max_reasoning_tokens: self.max_reasoning_tokens,
            dreams: self.dreams,
            answering: self.answering,
            seed: self.seed,
        }
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
        let Outcome::Labels { prompts, dreams, coverage, .. } = outcome else {
            return Err(Refusal::Kind("label"));
        };
        asked.count("labelled prompts", *prompts as usize, asked.ids.len())?;
        if u64::from(*dreams) > u64::from(self.dreams.rounds) * asked.ids.len() as u64 {
            return Err(Refusal::Value("the number of new prompts"));
        }
        let fits = coverage.labelled_bytes <= coverage.answer_bytes;
        fits.then_some(()).ok_or(Refusal::Value("the number of labelled bytes"))
    }
}

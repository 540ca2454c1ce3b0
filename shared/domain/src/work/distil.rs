//! Training an adapter for the student, from labels.

use super::Job;
use crate::{Asked, BlobRef, DistilLoss, LARGEST, Outcome, Refusal, TrainingSummary};
use serde::{Deserialize, Serialize};

/// Trains an adapter for the student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distil {
    /// Label blobs to learn from.
    pub train: Vec<BlobRef>,
    /// Label blobs to stop early on.
    pub validation: Vec<BlobRef>,
    /// How.
    pub recipe: DistilRecipe,
}

/// How a student is distilled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DistilRecipe {
    /// Rank of the low-rank adapters; 0: what suits the student.
    pub rank: u32,
    /// LoRA's alpha; an adapter's product is scaled by alpha / rank. 0: the rank.
    pub alpha: f32,
    /// Passes over the labels, at most.
    pub epochs: u32,
    /// Peak learning rate of AdamW; 0: what suits the student.
    pub learning_rate: f32,
    /// Tokens per step.
    pub batch_tokens: u32,
    /// Weight of what the teacher says against the reference's cross-entropy: 0 learns from text
    /// alone.
    pub teacher_weight: f32,
    /// Seed of shuffling and initial adapters.
    pub seed: u64,
    /// What is learned of the teacher. Unsaid in recipes of builds that knew but one.
    #[serde(default, skip_serializing_if = "DistilLoss::is_usual")]
    pub loss: DistilLoss,
    /// Whether the student's frozen layers are held in NF4 (QLoRA, arXiv 2305.14314) rather than as floats.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nf4: bool,
}

impl Distil {
    /// How a training went is told in losses that there can be.
    pub(super) fn check_summary(summary: &TrainingSummary) -> Result<(), Refusal> {
        let fits = [summary.before, summary.after].iter().all(|x| (0.0..=LARGEST).contains(x));
        fits.then_some(()).ok_or(Refusal::Value("a validation loss"))
    }
}

impl<P> Job<P> for Distil {
    fn name(&self) -> &'static str {
        "distil"
    }

    fn prompts(&self) -> &[P] {
        &[]
    }

    fn blobs(&self) -> Vec<BlobRef> {
        self.train.iter().chain(&self.validation).copied().collect()
    }

    fn check(&self, _: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal> {
        let Outcome::Adapter { summary, .. } = outcome else { return Err(Refusal::Kind("distil")) };
        Self::check_summary(summary)
    }
}

//! What a worker is asked to do.

use crate::{BlobRef, Fingerprint, Mask, Prompt, TaskId, Unit, UnitKind};
use serde::{Deserialize, Serialize};

/// One piece of work, meant to take a worker about half a minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Derived from the plan, so that planning again names it the same.
    pub id: TaskId,
    /// The batch of evidence that it belongs to.
    pub epoch: u32,
    /// The model to measure: the teacher, or for student work the base student.
    pub model: Fingerprint,
    /// What to do.
    pub work: Work,
}

/// The kinds of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Routing and activation statistics of one forward.
    Trace {
        /// On these prompts.
        prompts: Vec<Prompt>,
    },
    /// Effects of single units.
    Patch {
        /// On these prompts.
        prompts: Vec<Prompt>,
        /// By this method.
        method: PatchMethod,
        /// Of these units (same kind or not); the whole of `kinds` for gradient methods.
        kinds: Vec<UnitKind>,
        /// What replaces a unit.
        baseline: Baseline,
    },
    /// The loss of each prompt under each cut, and under none.
    Ablate {
        /// On these prompts.
        prompts: Vec<Prompt>,
        /// One run each.
        cuts: Vec<Cut>,
    },
    /// Answers and token probabilities for a student to learn.
    Label {
        /// On these prompts.
        prompts: Vec<Prompt>,
        /// The teacher's mask, if its cost allows one.
        mask: Option<Mask>,
        /// Probabilities kept per token.
        top_k: u32,
        /// Bound on a generated answer.
        max_new_tokens: u32,
        /// Bound on the reasoning before it.
        #[serde(default = "Work::reasoning_tokens", skip_serializing_if = "Work::is_usual_reasoning")]
        max_reasoning_tokens: u32,
    },
    /// Trains an adapter for the student.
    Distil {
        /// Label blobs to learn from.
        train: Vec<BlobRef>,
        /// Label blobs to stop early on.
        validation: Vec<BlobRef>,
        /// How.
        recipe: DistilRecipe,
    },
    /// Writes a 4-bit student.
    Export {
        /// The adapter to merge; none exports the base.
        adapter: Option<BlobRef>,
        /// Prompts whose activations calibrate the quantiser.
        calibration: Vec<Prompt>,
        /// Into what.
        format: ExportFormat,
    },
    /// The loss of a model on prompts with references.
    Judge {
        /// On these prompts.
        prompts: Vec<Prompt>,
        /// Which model.
        subject: Subject,
    },
}

impl Work {
    /// Tokens of reasoning before an answer, where nothing else is said.
    pub const REASONING_TOKENS: u32 = 1024;

    /// [`Self::REASONING_TOKENS`], for what was written before the bound was.
    pub fn reasoning_tokens() -> u32 {
        Self::REASONING_TOKENS
    }

    /// Whether a bound need not be written.
    pub fn is_usual_reasoning(tokens: &u32) -> bool {
        *tokens == Self::REASONING_TOKENS
    }

    /// A short name for logs and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Work::Trace { .. } => "trace",
            Work::Patch { .. } => "patch",
            Work::Ablate { .. } => "ablate",
            Work::Label { .. } => "label",
            Work::Distil { .. } => "distil",
            Work::Export { .. } => "export",
            Work::Judge { .. } => "judge",
        }
    }

    /// The prompts that the work carries, if any.
    pub fn prompts(&self) -> &[Prompt] {
        match self {
            Work::Trace { prompts }
            | Work::Patch { prompts, .. }
            | Work::Ablate { prompts, .. }
            | Work::Label { prompts, .. }
            | Work::Judge { prompts, .. } => prompts,
            Work::Export { calibration, .. } => calibration,
            Work::Distil { .. } => &[],
        }
    }
}

/// How a unit's effect is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatchMethod {
    /// One run per unit, from the patched layer on.
    Exact,
    /// Attribution patching (Nanda): (baseline − clean) times the gradient of the loss.
    Atp,
}

/// What replaces a unit's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// Nothing.
    Zero,
    /// Its mean over the prompts.
    Mean,
}

/// One run of an ablation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// One unit gone: an expert banned and its tokens re-routed, a head or channel zeroed.
    Unit(Unit),
    /// Everything outside the mask gone.
    Mask(Mask),
}

/// How a student is distilled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DistilRecipe {
    /// Rank of the low-rank adapters.
    pub rank: u32,
    /// LoRA's alpha; an adapter's product is scaled by alpha / rank.
    pub alpha: f32,
    /// Passes over the labels.
    pub epochs: u32,
    /// Peak learning rate of AdamW.
    pub learning_rate: f32,
    /// Tokens per step.
    pub batch_tokens: u32,
    /// Weight of the teacher's distribution against the reference's cross-entropy: 0 learns from text alone.
    pub teacher_weight: f32,
    /// Seed of shuffling and initial adapters.
    pub seed: u64,
}

/// The 4-bit formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// GPTQ v1, symmetric, Hessian-aware, Hugging Face folder.
    Gptq,
    /// The same layout, rounded to nearest: the yardstick.
    Rtn,
    /// GGUF for llama.cpp and its family.
    Gguf,
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
        files: Vec<crate::StoredFile>,
    },
}

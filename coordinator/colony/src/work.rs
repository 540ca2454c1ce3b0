//! Tasks as the ledger knows them: prompts by their place in the campaign, never their text (invariant 7).

use crate::{CampaignConfig, Split};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uspx_domain::{
    Baseline, BlobRef, Cut, DistilRecipe, ExportFormat, Fingerprint, Mask, PatchMethod, Prompt, Skipped, Subject, Task,
    TaskId, UnitKind, Work,
};

/// A task without its prompts' text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// Derived from campaign, epoch and index: planning again names it the same.
    pub id: TaskId,
    /// The batch of evidence that it belongs to.
    pub epoch: u32,
    /// Its place in that batch, from 0.
    pub index: u32,
    /// The model it is about.
    pub model: Fingerprint,
    /// What to do.
    pub work: PlannedWork,
}

/// The kinds of work; `prompts` are places in [`CampaignConfig::prompts`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedWork {
    /// See [`Work::Trace`].
    Trace {
        /// On these prompts.
        prompts: Vec<u32>,
    },
    /// See [`Work::Patch`].
    Patch {
        /// On these prompts.
        prompts: Vec<u32>,
        /// By this method.
        method: PatchMethod,
        /// Of these kinds.
        kinds: Vec<UnitKind>,
        /// What replaces a unit.
        baseline: Baseline,
    },
    /// See [`Work::Ablate`].
    Ablate {
        /// On these prompts.
        prompts: Vec<u32>,
        /// One run each, and what the run is for.
        cuts: Vec<PlannedCut>,
    },
    /// See [`Work::Label`].
    Label {
        /// On these prompts.
        prompts: Vec<u32>,
        /// What the labels are for.
        split: Split,
        /// The teacher's mask.
        mask: Option<Mask>,
        /// Probabilities kept per token.
        top_k: u32,
        /// Bound on a generated answer.
        max_new_tokens: u32,
        /// Bound on the reasoning before it.
        #[serde(default = "Work::reasoning_tokens", skip_serializing_if = "Work::is_usual_reasoning")]
        max_reasoning_tokens: u32,
    },
    /// See [`Work::Distil`].
    Distil {
        /// Place of the recipe in the campaign's list.
        number: u32,
        /// Labels to learn from.
        train: Vec<BlobRef>,
        /// Labels to stop early on.
        validation: Vec<BlobRef>,
        /// How.
        recipe: DistilRecipe,
    },
    /// See [`Work::Export`].
    Export {
        /// The adapter to merge.
        adapter: Option<BlobRef>,
        /// Prompts that calibrate the quantiser.
        calibration: Vec<u32>,
        /// Into what.
        format: ExportFormat,
    },
    /// See [`Work::Judge`].
    Judge {
        /// On these prompts.
        prompts: Vec<u32>,
        /// Whose losses these will be.
        contender: Contender,
        /// Which model.
        subject: Subject,
    },
}

/// One run of an ablation and what it is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedCut {
    /// What for.
    pub role: CutRole,
    /// What is cut.
    pub cut: Cut,
}

/// What a run of an ablation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutRole {
    /// Evidence on one unit.
    Unit,
    /// A round's mask of the day, beside its candidates.
    Current(u32),
    /// A mask near the current one: round and number.
    Candidate(u32, u32),
    /// The mask that the colony stands by.
    Chosen,
    /// A random mask of the same size and rule.
    Random(u32),
    /// A point of the curve: millionths pruned.
    Curve(u32),
}

/// A model in the final comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contender {
    /// The teacher.
    Teacher,
    /// The base student.
    Base,
    /// The student distilled by a recipe (its place in the list), unquantised.
    Distilled(u32),
    /// The 4-bit GPTQ student.
    Gptq,
    /// The same rounded to nearest.
    Rtn,
    /// The GGUF student.
    Gguf,
    /// The release published before.
    Published,
}

impl From<ExportFormat> for Contender {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Gptq => Self::Gptq,
            ExportFormat::Rtn => Self::Rtn,
            ExportFormat::Gguf => Self::Gguf,
        }
    }
}

/// A planned task's prompt cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The campaign has no prompt at that place.
    #[error("task {0} names prompt {1}, which the campaign has not: the ledger is of another version")]
    NoSuchPrompt(TaskId, u32),
    /// The text is not at hand.
    #[error("the text of prompt `{0}` is missing: start the coordinator with the prompt file of its campaign")]
    NoText(String),
}

impl PlannedWork {
    /// The prompts that the work is about, by place.
    pub fn prompts(&self) -> &[u32] {
        match self {
            Self::Trace { prompts }
            | Self::Patch { prompts, .. }
            | Self::Ablate { prompts, .. }
            | Self::Label { prompts, .. }
            | Self::Judge { prompts, .. } => prompts,
            Self::Export { calibration, .. } => calibration,
            Self::Distil { .. } => &[],
        }
    }

    /// The places of the prompts that an answer's numbers are about, in order: the work's without the skipped ones.
    pub fn measured(&self, campaign: &CampaignConfig, skipped: &[Skipped]) -> Vec<u32> {
        let skipped: BTreeSet<&str> = skipped.iter().map(|s| s.id.as_str()).collect();
        let is_measured = |at: &u32| campaign.id(*at).is_some_and(|id| !skipped.contains(id));
        self.prompts().iter().copied().filter(is_measured).collect()
    }

    /// A short name for logs and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Trace { .. } => "trace",
            Self::Patch { .. } => "patch",
            Self::Ablate { .. } => "ablate",
            Self::Label { .. } => "label",
            Self::Distil { .. } => "distil",
            Self::Export { .. } => "export",
            Self::Judge { .. } => "judge",
        }
    }

    /// Whether two answers to it can be compared number by number.
    pub fn is_comparable(&self) -> bool {
        matches!(self, Self::Trace { .. } | Self::Patch { .. } | Self::Ablate { .. } | Self::Judge { .. })
    }

    fn with(&self, prompts: Vec<Prompt>) -> Work {
        match self.clone() {
            Self::Trace { .. } => Work::Trace { prompts },
            Self::Patch { method, kinds, baseline, .. } => Work::Patch { prompts, method, kinds, baseline },
            Self::Ablate { cuts, .. } => Work::Ablate { prompts, cuts: cuts.into_iter().map(|c| c.cut).collect() },
            Self::Label { mask, top_k, max_new_tokens, max_reasoning_tokens, .. } => {
                Work::Label { prompts, mask, top_k, max_new_tokens, max_reasoning_tokens }
            }
            Self::Distil { train, validation, recipe, .. } => Work::Distil { train, validation, recipe },
            Self::Export { adapter, format, .. } => Work::Export { adapter, calibration: prompts, format },
            Self::Judge { subject, .. } => Work::Judge { prompts, subject },
        }
    }
}

impl PlannedTask {
    /// Names and places a piece of work.
    pub fn new(campaign: &CampaignConfig, epoch: u32, index: u32, model: Fingerprint, work: PlannedWork) -> Self {
        let id = TaskId::derived(format!("{}/{epoch}/{index}", campaign.name).as_bytes());
        Self { id, epoch, index, model, work }
    }

    /// The task with its prompts' text, as it goes to a worker.
    ///
    /// # Errors
    /// A prompt that the campaign or `text` does not know.
    pub fn attach(
        &self,
        campaign: &CampaignConfig,
        text: impl Fn(&str) -> Option<Prompt>,
    ) -> Result<Task, AttachError> {
        let prompts = self.work.prompts().iter().map(|at| {
            let entry = campaign.prompts.get(*at as usize).ok_or(AttachError::NoSuchPrompt(self.id, *at))?;
            text(&entry.id).ok_or_else(|| AttachError::NoText(entry.id.clone()))
        });
        let work = self.work.with(prompts.collect::<Result<_, _>>()?);
        Ok(Task { id: self.id, epoch: self.epoch, model: self.model, work })
    }
}

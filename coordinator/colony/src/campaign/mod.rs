//! What a campaign is founded on: models, prompts by id, budgets and bounds. All of it lies in the
//! ledger's first record.

mod change;
mod settings;

pub(crate) use change::Stands;
pub use change::{Change, change};
pub(crate) use settings::HOUR;
pub use settings::{
    DreamPlan, FinishPlan, JudgePlan, MaskPlan, MindPlan, ProbePlan, SaePlan, StudentPlan,
    TogetherPlan, TrustPlan, usual,
};

use crate::Share;
use crate::state::Stage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uspx_domain::{Answering, Digest, Fingerprint, ModelShape, Prompt, UnitKind};

/// What a prompt may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Probes and distillation.
    Train,
    /// Early stopping and choices.
    Validation,
    /// Release decisions and reports only.
    Gate,
    /// Nothing any more: it was taken out or edited since the campaign began.
    Retired,
}

/// A prompt as the ledger knows it: never its text (invariant 7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptEntry {
    /// Its id.
    pub id: String,
    /// What it says ([`Prompt::digest`]).
    pub digest: Digest,
    /// What it may be used for.
    pub split: Split,
    /// Free labels; the gate looks at each that is frequent enough.
    pub tags: Vec<String>,
    /// When it came: 0 with the founding, then counted up as more are added.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
}

fn is_first(generation: &u32) -> bool {
    *generation == 0
}

impl PromptEntry {
    /// What the ledger knows of a prompt.
    pub fn of(prompt: &Prompt, split: Split) -> Self {
        let (id, tags) = (prompt.id.clone(), prompt.tags.clone());
        Self { id, digest: prompt.digest(), split, tags, generation: 0 }
    }
}

/// Everything that decisions depend on besides answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CampaignConfig {
    /// Names the campaign. Under another name, another one begins.
    pub name: String,
    /// Seed of every draw.
    pub seed: u64,
    /// The model that is measured.
    pub teacher: Fingerprint,
    /// The base student; without one the campaign ends with its mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<Fingerprint>,
    /// The teacher's dimensions.
    pub shape: ModelShape,
    /// The person's prompts.
    pub prompts: Vec<PromptEntry>,
    /// What is measured, and how much.
    #[serde(default)]
    pub probe: ProbePlan,
    /// Where the exact runs go.
    #[serde(default = "MindPlan::none", skip_serializing_if = "MindPlan::is_none")]
    pub mind: MindPlan,
    /// What is kept.
    #[serde(default)]
    pub mask: MaskPlan,
    /// What masks are compared with.
    #[serde(default)]
    pub judge: JudgePlan,
    /// Which sparse autoencoders are trained.
    #[serde(default, skip_serializing_if = "SaePlan::is_usual")]
    pub sae: SaePlan,
    /// What the student learns beside the person's prompts.
    #[serde(default = "DreamPlan::none", skip_serializing_if = "DreamPlan::is_none")]
    pub dream: DreamPlan,
    /// Which answers it learns.
    #[serde(default, skip_serializing_if = "Answering::is_usual")]
    pub answers: Answering,
    /// How the student is made.
    #[serde(default)]
    pub distil: StudentPlan,
    /// How many machines share a training.
    #[serde(default = "TogetherPlan::none", skip_serializing_if = "TogetherPlan::is_none")]
    pub together: TogetherPlan,
    /// How its 4 bits are finished.
    #[serde(default = "FinishPlan::none", skip_serializing_if = "FinishPlan::is_none")]
    pub finish: FinishPlan,
    /// How far workers are trusted.
    #[serde(default)]
    pub trust: TrustPlan,
}

/// Why there can be no such campaign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A prompt's id stands twice.
    #[error("prompt `{0}` is named twice: give every prompt its own id")]
    Twice(String),
    /// A split has no prompt.
    #[error("no {0} prompts: each of train, validation and gate needs some")]
    NoPrompts(&'static str),
    /// The teacher has no unit of the mask's kind.
    #[error("the teacher has no {0}s to cut: choose another kind")]
    NoUnits(UnitKind),
    /// The teacher has no such layer.
    #[error("the teacher has no layer {0} for a sparse autoencoder: its layers are 0 to {1}")]
    NoLayer(u32, usize),
    /// A number that must lie in a range does not.
    #[error("`{0}` is out of range: {1}")]
    Range(&'static str, &'static str),
}

impl CampaignConfig {
    /// A campaign with the default budgets and bounds.
    pub fn new(
        name: impl Into<String>,
        teacher: (Fingerprint, ModelShape),
        student: impl Into<Option<Fingerprint>>,
        prompts: Vec<PromptEntry>,
    ) -> Self {
        Self {
            name: name.into(),
            seed: 0,
            teacher: teacher.0,
            student: student.into(),
            shape: teacher.1,
            prompts,
            probe: ProbePlan::default(),
            mind: MindPlan::default(),
            mask: MaskPlan::default(),
            judge: JudgePlan::default(),
            sae: SaePlan::default(),
            dream: DreamPlan::default(),
            answers: Answering::default(),
            distil: StudentPlan::default(),
            together: TogetherPlan::none(),
            finish: FinishPlan::default(),
            trust: TrustPlan::default(),
        }
    }

    /// The prompts of a split, by their place in `prompts`, in that order.
    pub fn split(&self, split: Split) -> Vec<u32> {
        (0u32..).zip(&self.prompts).filter(|(_, p)| p.split == split).map(|(at, _)| at).collect()
    }

    /// The prompts that are in use, with their places.
    pub fn live(&self) -> impl Iterator<Item = (u32, &PromptEntry)> {
        (0u32..).zip(&self.prompts).filter(|(_, p)| p.split != Split::Retired)
    }

    /// Whether a stage has anything to do in it.
    pub fn has(&self, stage: Stage) -> bool {
        match stage {
            Stage::Sae => !self.sae.layers.is_empty(),
            stage => !stage.needs_student() || self.student.is_some(),
        }
    }

    /// What labels depend on besides prompts and mask.
    fn labelling(&self) -> ([u32; 4], Answering) {
        let student = &self.distil;
        let bounds = (student.max_new_tokens, student.max_reasoning_tokens);
        ([student.top_k, bounds.0, bounds.1, self.dream.rounds], self.answers)
    }

    /// What the campaign is: the digest of all of this.
    pub fn digest(&self) -> Digest {
        Digest::of(&rmp_serde::to_vec_named(self).unwrap_or_default())
    }

    /// The same without the sizes of tasks, which decide nothing of what is measured, nor does the time that students
    /// may take of a day, nor do the steps of rounds where no training has any.
    pub(crate) fn without_sizes(&self) -> Self {
        let mut same = self.clone();
        let (probe, distil) = (&mut same.probe, &mut same.distil);
        (probe.trace_batch, probe.patch_batch, probe.units_per_task) = (None, None, None);
        (same.judge.batch, distil.label_batch, distil.judge_batch) = (None, None, None);
        distil.hours_a_day = 0.0;
        if !same.together.is_shared() {
            same.together = TogetherPlan::none();
        }
        same
    }

    /// The id of the prompt at a place.
    pub fn id(&self, at: u32) -> Option<&str> {
        self.prompts.get(at as usize).map(|p| p.id.as_str())
    }

    /// Units that the mask chooses among.
    pub fn units(&self) -> usize {
        self.shape.count(self.mask.kind)
    }

    /// Checks that a campaign can run on this.
    ///
    /// # Errors
    /// The first thing that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.units() == 0 {
            return Err(ConfigError::NoUnits(self.mask.kind));
        }
        let layers = self.shape.layers.len();
        if let Some(layer) = self.sae.layers.iter().find(|layer| **layer as usize >= layers) {
            return Err(ConfigError::NoLayer(*layer, layers.saturating_sub(1)));
        }
        let mut seen = BTreeSet::new();
        if let Some((_, twice)) = self.live().find(|(_, p)| !seen.insert(p.id.as_str())) {
            return Err(ConfigError::Twice(twice.id.clone()));
        }
        for (split, name) in
            [(Split::Train, "train"), (Split::Validation, "validation"), (Split::Gate, "gate")]
        {
            if !self.prompts.iter().any(|p| p.split == split) {
                return Err(ConfigError::NoPrompts(name));
            }
        }
        self.check_ranges()
    }

    /// Checks the numbers alone.
    ///
    /// # Errors
    /// The first that is out of range.
    pub fn check_ranges(&self) -> Result<(), ConfigError> {
        let batches = [
            self.probe.trace_batch,
            self.probe.patch_batch,
            Some(self.probe.round_prompts),
            self.probe.units_per_task,
            self.judge.batch,
            Some(self.judge.masks_per_task),
            self.distil.label_batch,
            self.distil.judge_batch,
        ];
        let layers: BTreeSet<u32> = self.sae.layers.iter().copied().collect();
        let small = |share: Share| (1..=Share::WHOLE).contains(&share.0);
        if let Some(why) = self.answers.flaw() {
            return Err(ConfigError::Range("answers", why));
        }
        let rules: [(bool, &'static str, &'static str); 12] = [
            (batches.iter().flatten().all(|b| *b > 0), "batch sizes", "each must be at least 1"),
            (small(self.mask.keep), "mask.keep", "more than 0, at most 1"),
            (small(self.probe.evaporation), "probe.evaporation", "more than 0, at most 1"),
            (layers.len() == self.sae.layers.len(), "sae.layers", "name each layer once"),
            (self.probe.uniform.0 <= Share::WHOLE, "probe.uniform", "at most 1"),
            (small(self.mind.first), "mind.first", "more than 0, at most 1"),
            (self.trust.duplicates <= Share::percent(10), "trust.duplicates", "at most 0.1"),
            (
                self.trust.ahead > 0 && self.trust.attempts > 0,
                "trust",
                "`ahead` and `attempts` must be at least 1",
            ),
            (
                !self.distil.recipes.is_empty() && self.distil.resamples > 0,
                "distil",
                "name a recipe and some resamples",
            ),
            (
                self.distil.hours_a_day >= 0.0 && self.distil.hours_a_day.is_finite(),
                "distil.hours_a_day",
                "hours, or 0 for no limit",
            ),
            (
                self.together.machines <= TogetherPlan::MOST_MACHINES,
                "together.machines",
                "at most 64",
            ),
            (self.together.steps > 0, "together.steps", "at least 1"),
        ];
        if let Some((_, name, why)) = rules.iter().find(|(fits, _, _)| !fits) {
            return Err(ConfigError::Range(name, why));
        }
        self.sae.recipe.check().map_err(|why| ConfigError::Range("sae.recipe", why))
    }
}

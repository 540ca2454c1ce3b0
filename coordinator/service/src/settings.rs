//! What a coordinator is started with.

use std::path::PathBuf;
use std::time::Duration;
use uspx_colony::campaign::{
    DreamPlan, FinishPlan, JudgePlan, MaskPlan, MindPlan, ProbePlan, SaePlan, StudentPlan,
    TogetherPlan, TrustPlan,
};
use uspx_colony::{CampaignConfig, ConfigError};
use uspx_domain::{Answering, Digest, Fingerprint, ModelShape};

use crate::PromptBook;
use crate::ledger::Compaction;
use serde::{Deserialize, Serialize};

/// A coordinator's settings.
#[derive(Debug, Clone)]
pub struct CoordinatorSettings {
    /// The colony's name; it stands in releases.
    pub colony: String,
    /// Where ledger, mask and status are kept.
    pub state: PathBuf,
    /// How long a worker may be silent before its tasks go to others.
    pub silence: Duration,
    /// How long a task's holder may make no progress before the bus delivers it again.
    pub lease: Duration,
    /// How long this coordinator may leave its claim on the colony unrenewed before another one may
    /// take it over. Longer than an acknowledgement may take (30 s).
    pub takeover: Duration,
    /// Whether to stay when the campaign is over, for prompts that are added.
    pub stay: bool,
    /// When the ledger is begun anew with a snapshot.
    pub compaction: Compaction,
    /// The campaign to run.
    pub plan: CampaignPlan,
}

impl CoordinatorSettings {
    /// The usual times: 15 s of silence, 60 s for lease and takeover.
    pub fn new(colony: impl Into<String>, state: impl Into<PathBuf>) -> Self {
        Self {
            colony: colony.into(),
            state: state.into(),
            silence: Duration::from_secs(15),
            lease: Duration::from_secs(60),
            takeover: Duration::from_secs(60),
            stay: false,
            compaction: Compaction::default(),
            plan: CampaignPlan::default(),
        }
    }
}

/// A campaign as the operator configures it; models may be left to be found among the workers' own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CampaignPlan {
    /// Its name.
    pub name: Option<String>,
    /// Seed of every draw.
    pub seed: u64,
    /// The teacher; without it the only mixture of experts that a worker holds.
    pub teacher: Option<Fingerprint>,
    /// The base student; without it the only dense model that a worker holds.
    pub student: Option<Fingerprint>,
    /// Whether no student is wanted: the campaign ends with its mask.
    pub stop_at_mask: bool,
    /// What is measured, and how much.
    pub probe: ProbePlan,
    /// Where the exact runs go.
    pub mind: MindPlan,
    /// What is kept.
    pub mask: MaskPlan,
    /// What masks are compared with.
    pub judge: JudgePlan,
    /// Which sparse autoencoders are trained.
    pub sae: SaePlan,
    /// What the student learns beside the person's prompts.
    pub dream: DreamPlan,
    /// Which answers it learns.
    pub answers: Answering,
    /// How the student is made.
    pub distil: StudentPlan,
    /// How its trainings are shared.
    pub together: TogetherPlan,
    /// How its 4 bits are finished.
    pub finish: FinishPlan,
    /// How far workers are trusted.
    pub trust: TrustPlan,
}

impl CampaignPlan {
    /// Checks the numbers, as far as that can be done without models and prompts.
    ///
    /// # Errors
    /// The first that is out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (nobody, shape) = (Fingerprint(Digest::of(b"")), ModelShape { layers: Vec::new() });
        self.config((nobody, shape), None, &PromptBook::default()).check_ranges()
    }

    /// The colony's configuration.
    pub fn config(
        &self,
        teacher: (Fingerprint, ModelShape),
        student: Option<Fingerprint>,
        book: &PromptBook,
    ) -> CampaignConfig {
        let name = self.name.clone().unwrap_or_else(|| "campaign".to_owned());
        CampaignConfig {
            seed: self.seed,
            probe: self.probe.clone(),
            mind: self.mind.clone(),
            mask: self.mask.clone(),
            judge: self.judge.clone(),
            sae: self.sae.clone(),
            dream: self.dream.clone(),
            answers: self.answers,
            distil: self.distil.clone(),
            together: self.together.clone(),
            finish: self.finish.clone(),
            trust: self.trust.clone(),
            ..CampaignConfig::new(name, teacher, student, book.entries())
        }
    }
}

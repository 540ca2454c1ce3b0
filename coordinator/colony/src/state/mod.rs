//! What the colony knows: a pure fold over the ledger's records.

mod amend;
mod blobs;
mod by_prompt;
mod doubt;
mod evidence;
mod fold;
mod layers;
mod pending;
mod results;
mod snapshot;
mod students;
mod ticket;

pub use by_prompt::{ByPrompt, CONTROL, Effect, SECOND, Scores};
pub use evidence::{Sums, Trails};
use fold::Taken;
use pending::Pending;
pub use results::{Judged, Pair, Results, Trial};
pub use snapshot::{Snapshot, SnapshotError};
pub use students::{KeptBack, Spent};
pub use ticket::{Account, Attempt, Fate, Ticket};

use crate::{
    CampaignConfig, Contender, Ending, Fixed, GateReport, MaskVersion, ReleaseOrder, Split,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{
    Answer, Coverage, Digest, ExportFormat, Fingerprint, ReleaseNumber, SeamPrompts, SkipReason,
    StoredFile, TaskId, Unit, WorkerId,
};

/// What a batch of work is for, in the order of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// One forward of every train prompt.
    Trace,
    /// Attribution patching.
    Patch,
    /// Rounds of exact expert ablations and candidate masks.
    Explore,
    /// The mask against random ones, and the curve.
    JudgeMasks,
    /// Sparse autoencoders of the teacher's layers.
    Sae,
    /// The teacher's answers.
    Label,
    /// Training.
    Distil,
    /// 4-bit students.
    Export,
    /// All models on the gate prompts.
    JudgeStudents,
}

impl Stage {
    /// Whether its evidence bears on the mask.
    pub fn is_probe(self) -> bool {
        matches!(self, Self::Trace | Self::Patch | Self::Explore)
    }

    /// Whether it is about a student, and left out where none is wanted.
    pub fn needs_student(self) -> bool {
        self >= Self::Label
    }

    /// A short name for logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Patch => "patch",
            Self::Explore => "explore",
            Self::JudgeMasks => "judge masks",
            Self::Sae => "sae",
            Self::Label => "label",
            Self::Distil => "distil",
            Self::Export => "export",
            Self::JudgeStudents => "judge students",
        }
    }
}

/// How far the exact rounds have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explored {
    /// Rounds opened.
    pub rounds: u32,
    /// Pairs of prompt and unit (or candidate mask) asked for.
    pub pairs: u64,
    /// Train prompts used, so that each round looks at fresh ones.
    pub prompts: u64,
}

/// The student that `latest` names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedStudent {
    /// Its number.
    pub release: ReleaseNumber,
    /// Its files by format, to judge it again on fresh gate prompts.
    pub formats: BTreeMap<ExportFormat, Vec<StoredFile>>,
}

impl PublishedStudent {
    /// The format and the files by which it is judged again; none where it lacks the gate's
    /// format.
    pub(crate) fn judged(&self) -> Option<(ExportFormat, Vec<StoredFile>)> {
        let gated = ExportFormat::gated();
        self.formats.get(&gated).filter(|files| !files.is_empty()).map(|f| (gated, f.clone()))
    }
}

/// What the colony knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub(crate) campaign: Option<CampaignConfig>,
    /// What the campaign's tasks are named by ([`crate::Founding::identity`]).
    pub(crate) identity: Option<Digest>,
    /// Epochs that today's rules would have decided otherwise than they were.
    pub(crate) deviations: BTreeSet<u32>,
    pub(crate) epoch: u32,
    pub(crate) stage: Option<Stage>,
    pub(crate) open: bool,
    /// Stages opened since the campaign began or was continued.
    pub(crate) opened: BTreeSet<Stage>,
    /// Prompts that each stage has asked for, by place.
    pub(crate) asked: BTreeMap<Stage, BTreeSet<u32>>,
    pub(crate) tickets: BTreeMap<TaskId, Ticket>,
    /// Accepted since the last close; their evidence has not acted yet.
    pub(crate) pending: Pending,
    /// Accepted in the last epoch and still to be compared.
    pub(crate) witnesses: BTreeMap<TaskId, Answer>,
    /// Later answers that say otherwise than the accepted one, as they came, until two agree.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) disputes: BTreeMap<TaskId, Vec<Answer>>,
    pub(crate) trails: Trails,
    pub(crate) pheromone: BTreeMap<Unit, f64>,
    pub(crate) mask: Option<MaskVersion>,
    pub(crate) stable_versions: u32,
    pub(crate) explored: Explored,
    /// What is known of single prompts.
    #[serde(default, skip_serializing_if = "ByPrompt::is_empty")]
    pub(crate) by_prompt: ByPrompt,
    pub(crate) results: Results,
    /// Prompts that a model cannot run, by place. A prompt may have several reasons: with its
    /// reference and without.
    pub(crate) skipped: BTreeMap<Fingerprint, BTreeMap<u32, BTreeSet<SkipReason>>>,
    /// Prompts that a tokenizer reads otherwise as a whole text than in use.
    pub(crate) seam_prompts: SeamPrompts,
    /// Why attempts came to nothing, counted, by kind of work, unless nobody is to blame.
    pub(crate) setbacks: BTreeMap<String, BTreeMap<String, u64>>,
    pub(crate) accounts: BTreeMap<WorkerId, Account>,
    pub(crate) planned: u64,
    pub(crate) duplicates: u64,
    pub(crate) gate: Option<GateReport>,
    pub(crate) order: Option<ReleaseOrder>,
    pub(crate) published: Option<PublishedStudent>,
    /// The train prompts of the student that the gate last decided about, by place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) learnt: Option<BTreeSet<u32>>,
    /// Whether a person holds students back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) held: bool,
    /// Whether a person has asked for one student all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) student_asked: bool,
    #[serde(default, skip_serializing_if = "Spent::is_none")]
    pub(crate) spent: Spent,
    pub(crate) ending: Option<Ending>,
    /// How it had ended before something beside it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_before: Option<Ending>,
}

impl State {
    /// The campaign, once one was founded.
    pub fn campaign(&self) -> Option<&CampaignConfig> {
        self.campaign.as_ref()
    }

    /// Epochs whose recorded decision today's rules would not come to; the recorded one counts.
    pub fn deviations(&self) -> &BTreeSet<u32> {
        &self.deviations
    }

    /// The latest epoch's number; 0 before the first.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What the latest epoch is or was for.
    pub fn stage(&self) -> Option<Stage> {
        self.stage
    }

    /// Whether an epoch is open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Tasks that may still be answered or compared, by name.
    pub fn tickets(&self) -> &BTreeMap<TaskId, Ticket> {
        &self.tickets
    }

    /// The latest epoch's tasks: (answered, given up, all).
    pub fn progress(&self) -> (usize, usize, usize) {
        let ours = || self.tickets.values().filter(|t| t.task.epoch == self.epoch);
        let given_up = ours().filter(|t| !t.is_answered() && t.given_up.is_some()).count();
        (ours().filter(|t| t.is_answered()).count(), given_up, ours().count())
    }

    /// Tasks that were planned, and those of them that went out twice to be compared.
    pub fn issued(&self) -> [u64; 2] {
        [self.planned, self.duplicates]
    }

    /// The evidence.
    pub fn trails(&self) -> &Trails {
        &self.trails
    }

    /// What is known of single prompts.
    pub fn by_prompt(&self) -> &ByPrompt {
        &self.by_prompt
    }

    /// A unit's exact effects on the train prompts that there are now, by place.
    pub fn effects(&self, unit: Unit) -> impl Iterator<Item = (u32, Effect)> {
        let split = |at: u32| Some(self.campaign.as_ref()?.prompts.get(at as usize)?.split);
        self.by_prompt.effects(unit).filter(move |(at, _)| split(*at) == Some(Split::Train))
    }

    /// Where to look next: 0.1 to 4 per unit.
    pub fn pheromone(&self) -> &BTreeMap<Unit, f64> {
        &self.pheromone
    }

    /// The mask of the day.
    pub fn mask(&self) -> Option<&MaskVersion> {
        self.mask.as_ref()
    }

    /// How far the exact rounds have come.
    pub fn explored(&self) -> Explored {
        self.explored
    }

    /// What later stages brought.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// The workers' records.
    pub fn accounts(&self) -> &BTreeMap<WorkerId, Account> {
        &self.accounts
    }

    /// The gate's decision, once made.
    pub fn gate(&self) -> Option<&GateReport> {
        self.gate.as_ref()
    }

    /// The release that the gate let pass in this campaign.
    pub fn order(&self) -> Option<&ReleaseOrder> {
        self.order.as_ref()
    }

    /// The release that is on its way: what was made beside a campaign that was over publishes nothing
    /// again.
    pub(crate) fn publishing(&self) -> Option<&ReleaseOrder> {
        let is_under_way = self.ending.is_none() && self.ended_before.is_none();
        self.order.as_ref().filter(|_| is_under_way)
    }

    /// The student that stands published.
    pub fn published(&self) -> Option<&PublishedStudent> {
        self.published.as_ref()
    }

    /// How the campaign ended, once it has.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// How much of the answers the labels cover; none where no worker said so.
    pub fn coverage(&self) -> Option<Coverage> {
        Some(self.results.coverage).filter(|c| c.answer_bytes > 0)
    }

    /// Prompts that a tokenizer reads otherwise as a whole text than in use, as far as they are
    /// known.
    pub fn seam_prompts(&self) -> SeamPrompts {
        self.seam_prompts
    }

    /// Whether something is still to come of a task: an answer, or one to hold beside it before it acts.
    pub(crate) fn is_waited_for(&self, ticket: &Ticket) -> bool {
        let is_current = self.open && ticket.task.epoch == self.epoch;
        !ticket.is_settled() || (is_current && ticket.is_being_compared())
    }

    /// Whether a model is known to be unable to run the prompt at a place.
    pub(crate) fn is_skipped(&self, model: Fingerprint, at: u32) -> bool {
        self.skipped.get(&model).is_some_and(|prompts| prompts.contains_key(&at))
    }

    /// A prompt's tags.
    pub(crate) fn tags(&self, prompt: u32) -> &[String] {
        self.campaign
            .as_ref()
            .and_then(|c| c.prompts.get(prompt as usize))
            .map_or(&[], |p| p.tags.as_slice())
    }

    /// Losses of a contender, by prompt.
    pub fn judged(&self, who: Contender) -> Option<&BTreeMap<u32, Judged>> {
        self.results.judged.get(&who)
    }

    /// Pooled loss of a contender in bits per byte, over the prompts that every judged contender
    /// has ([`Results::shared_prompts`]): one that a tokenizer cannot fit, or whose task was given
    /// up, shifts no figure.
    pub fn bits_per_byte(&self, who: Contender) -> Option<f64> {
        let rows = self.judged(who)?;
        let shared: Vec<&Judged> =
            self.results.shared_prompts().iter().filter_map(|at| rows.get(at)).collect();
        let nats: Fixed = shared.iter().map(|j| j.nats).sum();
        let bytes: u64 = shared.iter().map(|j| u64::from(j.bytes)).sum();
        (bytes > 0).then(|| nats.to_f64() / std::f64::consts::LN_2 / bytes as f64)
    }
}

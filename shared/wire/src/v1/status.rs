//! How the colony stands, for people. Nothing is decided by it, so that it is its own noun: the
//! coordinator writes it and `uspx status` shows it, as MessagePack from the bus or as JSON from
//! the state folder.

use serde::{Deserialize, Serialize};
use uspx_domain::{Coverage, Fingerprint, ReleaseNumber, SeamPrompts, TaskId, WorkerId};

/// A task at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentTask {
    /// Which.
    pub task: TaskId,
    /// Steps done.
    pub done: u64,
    /// Steps in all; 0 where that is not known yet.
    pub total: u64,
}

/// What `uspx status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusMessage {
    /// The colony's name.
    pub colony: String,
    /// Where it stands (`probe`, `label`, `distil`, ..), for people.
    pub stage: String,
    /// The current epoch.
    pub epoch: u32,
    /// Tasks that wait for an answer.
    pub tasks_open: u64,
    /// Tasks answered so far.
    pub tasks_answered: u64,
    /// Tasks given up so far.
    pub tasks_failed: u64,
    /// Its workers.
    pub workers: Vec<WorkerStatus>,
    /// The current mask, once there is one.
    pub mask: Option<MaskStatus>,
    /// The newest release, once there is one.
    pub release: Option<ReleaseNumber>,
    /// When this was written, in milliseconds since 1970 UTC. For people only.
    pub written_unix_millis: u64,
    /// Why tasks were given up, most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<ReasonStatus>,
    /// Why attempts at tasks came to nothing, most frequent first; most tasks are tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_attempts: Vec<ReasonStatus>,
    /// Prompts that a model cannot run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkipStatus>,
    /// Prompts that a tokenizer reads otherwise as a whole text than in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seam_prompts: Option<SeamStatus>,
    /// How much of the answers is labelled, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<CoverageStatus>,
    /// How far the campaign is, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<CampaignStatus>,
    /// Models of the campaign that workers lack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<LackStatus>,
    /// Why no student is made just now; none where nothing keeps them back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub students: Option<StudentsStatus>,
}

/// What keeps students back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudentsStatus {
    /// `held` by a person, or the day's machine time is `spent`.
    pub kept_back: String,
    /// Whether nothing else is left to do.
    pub waits: bool,
    /// How that ends, for people.
    pub text: String,
}

/// How far a campaign is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CampaignStatus {
    /// Its name.
    pub name: String,
    /// Its stage, from 1; 0 before the first.
    pub stage: u32,
    /// How many stages it has.
    pub stages: u32,
    /// What is done in this stage, for people.
    pub doing: String,
    /// Whether it is over; how, says the status' stage.
    pub ended: bool,
    /// Exact runs asked for so far, in pairs of prompt and unit or candidate mask.
    pub exact_pairs: u64,
    /// The most that will be.
    pub exact_most: u64,
    /// How long this stage still takes, in milliseconds, where that can be told. Never grows within
    /// a stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_millis: Option<u64>,
    /// Units that the last version of the mask exchanged for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_swapped: Option<u64>,
    /// When it was drawn, in milliseconds since 1970 UTC, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_unix_millis: Option<u64>,
    /// Expected overlap of the masks of two runs on other prompts of the same kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_runs: Option<f64>,
    /// Units that the mask cuts, and that belong above its cut; none where nothing exact is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrongly_cut: Option<WrongStatus>,
    /// Units that it keeps, and that belong below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrongly_kept: Option<WrongStatus>,
    /// The newest prompts beside those before them; none where all came at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStatus>,
}

/// Whether the newest prompts are of another kind than those before them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftStatus {
    /// Whether they are: the change's interval leaves 0 out.
    pub drifted: bool,
    /// Train prompts that are newest.
    pub newest: u64,
    /// Those before them.
    pub older: u64,
    /// What of all losses the newest are, from 0 to 1.
    pub share: f64,
    /// By how much what the older ones alone would cut costs more on the newest, in nats per response token.
    pub change: f64,
    /// The lower end of its 99 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// All that in words.
    pub text: String,
}

/// Units of one side of the cut that belong on the other, by the errors of their scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WrongStatus {
    /// All units of this side.
    pub units: u64,
    /// How many of them are expected to be wrong.
    pub expected: f64,
    /// Not more than so many are, in 95 of 100 cases.
    pub at_most: u64,
}

/// A model of the campaign that a worker lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LackStatus {
    /// Who.
    pub worker: WorkerId,
    /// `teacher` or `student`.
    pub model: String,
    /// Which.
    pub fingerprint: Fingerprint,
}

/// A reason, and how often it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonStatus {
    /// The kind of work (`trace`, `label`, ..).
    pub work: String,
    /// The reason, for people.
    pub reason: String,
    /// Tasks or attempts that it was given for.
    pub count: u64,
}

/// Prompts that a model cannot run, for one kind of reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipStatus {
    /// `teacher` or `student`.
    pub model: String,
    /// The kind of reason (`too_long`, `template`, ..).
    pub reason: String,
    /// Prompts.
    pub prompts: u64,
    /// Ids of the first of them.
    pub ids: Vec<String>,
    /// All that in words.
    pub text: String,
}

/// A worker, as the coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Who.
    pub worker: WorkerId,
    /// How it does (`idle`, `working`, `silent`, `quarantined`, ..), for people.
    pub state: String,
    /// What it computes on.
    pub device: String,
    /// What it is at work on.
    pub current: Option<CurrentTask>,
    /// Tasks it answered so far.
    pub answered: u64,
    /// Milliseconds since it was last heard of.
    pub silent_millis: u64,
    /// The kind of work that it is at (`trace`, `label`, ..).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<String>,
    /// How fast it was at its last task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<u64>,
}

/// The current mask in figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MaskStatus {
    /// Its revision, from 1.
    pub revision: u64,
    /// Kept units over all units of the kinds that it cuts.
    pub kept_fraction: f64,
    /// How much of it the last epochs left unchanged, 0 to 1.
    pub stability: f64,
}

/// Prompts with a seam, by model: see [`SeamPrompts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeamStatus {
    /// Of the teacher.
    pub teacher: u32,
    /// Of the base student.
    pub student: u32,
}

impl From<SeamPrompts> for SeamStatus {
    fn from(SeamPrompts { teacher, student }: SeamPrompts) -> Self {
        Self { teacher, student }
    }
}

impl From<SeamStatus> for SeamPrompts {
    fn from(SeamStatus { teacher, student }: SeamStatus) -> Self {
        Self { teacher, student }
    }
}

/// How much of the answers is labelled: see [`Coverage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageStatus {
    /// Bytes of the answers to learn.
    pub answer_bytes: u64,
    /// Bytes of them that are labelled.
    pub labelled_bytes: u64,
}

impl From<Coverage> for CoverageStatus {
    fn from(Coverage { answer_bytes, labelled_bytes }: Coverage) -> Self {
        Self { answer_bytes, labelled_bytes }
    }
}

impl From<CoverageStatus> for Coverage {
    fn from(CoverageStatus { answer_bytes, labelled_bytes }: CoverageStatus) -> Self {
        Self { answer_bytes, labelled_bytes }
    }
}

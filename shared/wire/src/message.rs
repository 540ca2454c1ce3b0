//! The messages. Frozen: their bytes stand in `fixtures/`, and a change of meaning is a new version of the kind.

use crate::envelope::Message;
use crate::large::Content;
use serde::{Deserialize, Serialize};
use uspx_domain::{
    Answer, Coverage, Fingerprint, Mask, ModelShape, ReleaseNumber, SeamPrompts, Task, TaskId, WorkerId,
};

/// A task on its way to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// The task, or where it lies.
    pub task: Content<Task>,
}

impl Message for TaskMessage {
    const KIND: &'static str = "task";
    const VERSION: u16 = 1;
}

/// An answer on its way back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerMessage {
    /// The answer, or where it lies.
    pub answer: Content<Answer>,
}

impl Message for AnswerMessage {
    const KIND: &'static str = "answer";
    const VERSION: u16 = 1;
}

/// What a worker says of itself when it starts, and every few seconds after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HelloMessage {
    /// Who.
    pub worker: WorkerId,
    /// Its version of uspx.
    pub uspx_version: String,
    /// The newest version that it reads of each kind of message.
    pub speaks: Vec<SpokenVersion>,
    /// The models that it holds.
    pub models: Vec<HeldModel>,
    /// Threads that it may use.
    pub threads: u32,
    /// Memory that it may use, in bytes.
    pub memory_bytes: u64,
    /// What it computes on, for people.
    pub device: String,
    /// What it is at work on.
    pub current: Option<CurrentTask>,
}

impl Message for HelloMessage {
    const KIND: &'static str = "hello";
    const VERSION: u16 = 1;
}

/// A kind of message and the newest version of it that is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpokenVersion {
    /// The kind.
    pub kind: String,
    /// The version.
    pub version: u16,
}

impl SpokenVersion {
    fn of<M: Message>() -> Self {
        Self { kind: M::KIND.to_owned(), version: M::VERSION }
    }

    /// All that this build reads.
    pub fn all() -> Vec<Self> {
        vec![
            Self::of::<TaskMessage>(),
            Self::of::<AnswerMessage>(),
            Self::of::<HelloMessage>(),
            Self::of::<StatusMessage>(),
            Self::of::<MaskMessage>(),
        ]
    }
}

/// A model on a worker's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldModel {
    /// Which.
    pub fingerprint: Fingerprint,
    /// Its architecture, as its `config.json` names it.
    pub architecture: String,
    /// Its dimensions: the coordinator plans with them, and never opens a model.
    pub shape: ModelShape,
}

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
    #[serde(default, skip_serializing_if = "SeamPrompts::is_none")]
    pub seam_prompts: SeamPrompts,
    /// How much of the answers is labelled, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Coverage>,
}

impl Message for StatusMessage {
    const KIND: &'static str = "status";
    const VERSION: u16 = 1;
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

/// The current mask, as the coordinator shares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaskMessage {
    /// In figures.
    pub status: MaskStatus,
    /// The mask.
    pub mask: Mask,
}

impl Message for MaskMessage {
    const KIND: &'static str = "mask";
    const VERSION: u16 = 1;
}

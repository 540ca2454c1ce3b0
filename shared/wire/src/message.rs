//! What is sent, as the rest of the workspace sees it. Its bytes, version by version, stand in
//! modules of their own.

use crate::envelope::{Message, Unread, read_body, write_body};
use crate::large::Content;
use crate::v1::{self, CurrentTask, MaskStatus, StatusMessage};
use std::collections::BTreeMap;
use uspx_domain::{Answer, Fingerprint, Mask, ModelShape, Speaks, Speed, Task, WorkerId};

/// What a worker says of itself when it starts, and every few seconds after.
#[derive(Debug, Clone, PartialEq)]
pub struct HeartbeatMessage {
    /// Who.
    pub worker: WorkerId,
    /// Its version of uspx.
    pub uspx_version: String,
    /// What it can be asked for.
    pub speaks: Speaks,
    /// The newest version that it reads of each kind of message.
    pub reads: BTreeMap<String, u16>,
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
    /// A count that grows while that moves, also between two steps of it: layers, bytes.
    pub beats: Option<u64>,
    /// How fast it was at its last task.
    pub speed: Option<Speed>,
}

/// A model on a worker's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldModel {
    /// Which.
    pub fingerprint: Fingerprint,
    /// Its architecture, as its `config.json` names it.
    pub architecture: String,
    /// What people call it, never a path.
    pub name: Option<String>,
    /// Its dimensions: the coordinator plans with them, and never opens a model.
    pub shape: ModelShape,
}

/// What a worker reads beside messages: earlier turns of a prompt. Who does not know them passes them
/// over, and would measure another prompt.
const CONVERSATIONS: &str = "conversations";

impl HeartbeatMessage {
    /// The newest version of each kind of message that this build reads.
    pub fn read_here() -> BTreeMap<String, u16> {
        fn of<M: Message>() -> (String, u16) {
            (M::KIND.to_owned(), M::VERSION)
        }
        [
            of::<Content<Task>>(),
            of::<Content<Answer>>(),
            of::<Self>(),
            of::<StatusMessage>(),
            of::<MaskMessage>(),
            (CONVERSATIONS.to_owned(), 1),
        ]
        .into()
    }

    /// What this build may ask of the worker: nothing, where it does not read the tasks that are
    /// written here. `conversations` says whether some of their prompts have earlier turns.
    pub fn may_be_asked(&self, conversations: bool) -> Speaks {
        let reads = self.reads.get(Content::<Task>::KIND).copied().unwrap_or(0);
        let all = !conversations || self.reads.contains_key(CONVERSATIONS);
        if all && reads >= Content::<Task>::VERSION {
            self.speaks.clone()
        } else {
            Speaks::default()
        }
    }
}

/// The current mask, as the coordinator shares it.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskMessage {
    /// In figures.
    pub status: MaskStatus,
    /// The mask.
    pub mask: Mask,
}

impl Message for Content<Task> {
    const KIND: &'static str = "task";
    const VERSION: u16 = 1;

    fn write(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        write_body(&self.as_ref().map(v1::Task::from))
    }

    fn read(version: u16, body: &[u8]) -> Result<Self, Unread> {
        match version {
            1 => read_body::<Content<v1::Task>>(body)?.try_map(Task::try_from),
            _ => Err(Unread::Version),
        }
    }
}

impl Message for Content<Answer> {
    const KIND: &'static str = "answer";
    const VERSION: u16 = 1;

    fn write(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        write_body(&self.as_ref().map(v1::Answer::from))
    }

    fn read(version: u16, body: &[u8]) -> Result<Self, Unread> {
        match version {
            1 => read_body::<Content<v1::Answer>>(body)?.try_map(Answer::try_from),
            _ => Err(Unread::Version),
        }
    }
}

impl Message for HeartbeatMessage {
    const KIND: &'static str = "heartbeat";
    const VERSION: u16 = 1;

    fn write(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        write_body(&v1::Heartbeat::from(self))
    }

    fn read(version: u16, body: &[u8]) -> Result<Self, Unread> {
        match version {
            1 => read_body::<v1::Heartbeat>(body)?.try_into(),
            _ => Err(Unread::Version),
        }
    }
}

impl Message for StatusMessage {
    const KIND: &'static str = "status";
    const VERSION: u16 = 1;

    fn write(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        write_body(self)
    }

    fn read(version: u16, body: &[u8]) -> Result<Self, Unread> {
        match version {
            1 => read_body(body),
            _ => Err(Unread::Version),
        }
    }
}

impl Message for MaskMessage {
    const KIND: &'static str = "mask";
    const VERSION: u16 = 1;

    fn write(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        write_body(&v1::MaskMessage::from(self))
    }

    fn read(version: u16, body: &[u8]) -> Result<Self, Unread> {
        match version {
            1 => read_body::<v1::MaskMessage>(body)?.try_into(),
            _ => Err(Unread::Version),
        }
    }
}

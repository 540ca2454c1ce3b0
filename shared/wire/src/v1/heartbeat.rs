//! A worker's sign of life.

use super::shape::{self, Layer};
use super::status::CurrentTask;
use crate::{Flaw, HeartbeatMessage, Unread};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Fingerprint, WorkerId};

/// Models, or names in a list, that one worker may speak of.
const MOST: usize = 64;
/// The longest text, in bytes.
const LONGEST: usize = 256;

#[derive(Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    worker: WorkerId,
    uspx_version: String,
    speaks: Speaks,
    models: Vec<HeldModel>,
    threads: u32,
    memory_bytes: u64,
    device: String,
    current: Option<CurrentTask>,
    /// Absent where it is at nothing, and of workers that do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beats: Option<u64>,
    /// Absent before the first task, and of workers that do not measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speed: Option<Speed>,
}

#[derive(Serialize, Deserialize)]
struct Speed {
    model: Fingerprint,
    /// A name, as everything that may grow.
    work: String,
    tokens_per_second: f64,
    prompt_tokens: f64,
    batch_tokens: u32,
    streamed: bool,
}

impl From<&uspx_domain::Speed> for Speed {
    fn from(speed: &uspx_domain::Speed) -> Self {
        Self {
            model: speed.model,
            work: speed.work.clone(),
            tokens_per_second: speed.tokens_per_second,
            prompt_tokens: speed.prompt_tokens,
            batch_tokens: speed.batch_tokens,
            streamed: speed.streamed,
        }
    }
}

impl TryFrom<Speed> for uspx_domain::Speed {
    type Error = Unread;
    fn try_from(speed: Speed) -> Result<Self, Unread> {
        let Speed { model, work, tokens_per_second, prompt_tokens, batch_tokens, streamed } = speed;
        let speed = Self { model, work, tokens_per_second, prompt_tokens, batch_tokens, streamed };
        let bounded = speed.is_possible() && speed.work.len() <= LONGEST;
        if bounded { Ok(speed) } else { Err(Flaw::Bounds.into()) }
    }
}

#[derive(Serialize, Deserialize)]
struct Speaks {
    jobs: BTreeSet<String>,
    estimators: BTreeSet<String>,
    /// Absent of workers that train by the usual one alone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    losses: BTreeSet<String>,
    /// Absent of workers that do every job in one way alone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    ways: BTreeSet<String>,
    /// The newest version read of each kind of message.
    messages: BTreeMap<String, u16>,
}

#[derive(Serialize, Deserialize)]
struct HeldModel {
    fingerprint: Fingerprint,
    architecture: String,
    /// Unsaid by workers that were built before there was a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    layers: Vec<Layer>,
}

impl From<&crate::HeldModel> for HeldModel {
    fn from(model: &crate::HeldModel) -> Self {
        Self {
            fingerprint: model.fingerprint,
            architecture: model.architecture.clone(),
            name: model.name.clone(),
            layers: super::all(&model.shape.layers),
        }
    }
}

impl TryFrom<HeldModel> for crate::HeldModel {
    type Error = Unread;
    fn try_from(model: HeldModel) -> Result<Self, Unread> {
        let HeldModel { fingerprint, architecture, name, layers } = model;
        Ok(Self { fingerprint, architecture, name, shape: shape::model(layers)? })
    }
}

impl From<&HeartbeatMessage> for Heartbeat {
    fn from(message: &HeartbeatMessage) -> Self {
        let uspx_domain::Speaks { jobs, estimators, losses, ways } = message.speaks.clone();
        Self {
            worker: message.worker.clone(),
            uspx_version: message.uspx_version.clone(),
            speaks: Speaks { jobs, estimators, losses, ways, messages: message.reads.clone() },
            models: super::all(&message.models),
            threads: message.threads,
            memory_bytes: message.memory_bytes,
            device: message.device.clone(),
            current: message.current,
            beats: message.beats,
            speed: message.speed.as_ref().map(Speed::from),
        }
    }
}

impl TryFrom<Heartbeat> for HeartbeatMessage {
    type Error = Unread;
    fn try_from(message: Heartbeat) -> Result<Self, Unread> {
        message.check()?;
        let Speaks { jobs, estimators, losses, ways, messages } = message.speaks;
        Ok(Self {
            worker: message.worker,
            uspx_version: message.uspx_version,
            speaks: uspx_domain::Speaks { jobs, estimators, losses, ways },
            reads: messages,
            models: super::try_all(message.models)?,
            threads: message.threads,
            memory_bytes: message.memory_bytes,
            device: message.device,
            current: message.current,
            beats: message.beats,
            speed: message.speed.map(TryInto::try_into).transpose()?,
        })
    }
}

impl Heartbeat {
    /// What a worker says of itself is kept and shown: it is bounded before that.
    fn check(&self) -> Result<(), Unread> {
        let Speaks { jobs, estimators, losses, ways, messages } = &self.speaks;
        let sets = [jobs, estimators, losses, ways];
        let lists = sets.map(BTreeSet::len).into_iter().chain([self.models.len(), messages.len()]);
        let names = sets.into_iter().flatten().chain(messages.keys());
        let texts = names.chain([&self.uspx_version, &self.device]);
        let mut texts = texts.chain(self.models.iter().map(|m| &m.architecture));
        let bounded = { lists }.all(|n| n <= MOST) && texts.all(|t| t.len() <= LONGEST);
        if bounded { Ok(()) } else { Err(Flaw::Bounds.into()) }
    }
}

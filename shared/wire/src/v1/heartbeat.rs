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
}

#[derive(Serialize, Deserialize)]
struct Speaks {
    jobs: BTreeSet<String>,
    estimators: BTreeSet<String>,
    /// The newest version read of each kind of message.
    messages: BTreeMap<String, u16>,
}

#[derive(Serialize, Deserialize)]
struct HeldModel {
    fingerprint: Fingerprint,
    architecture: String,
    layers: Vec<Layer>,
}

impl From<&crate::HeldModel> for HeldModel {
    fn from(model: &crate::HeldModel) -> Self {
        Self {
            fingerprint: model.fingerprint,
            architecture: model.architecture.clone(),
            layers: super::all(&model.shape.layers),
        }
    }
}

impl TryFrom<HeldModel> for crate::HeldModel {
    type Error = Unread;
    fn try_from(model: HeldModel) -> Result<Self, Unread> {
        let HeldModel { fingerprint, architecture, layers } = model;
        Ok(Self { fingerprint, architecture, shape: shape::model(layers)? })
    }
}

impl From<&HeartbeatMessage> for Heartbeat {
    fn from(message: &HeartbeatMessage) -> Self {
        let uspx_domain::Speaks { jobs, estimators } = message.speaks.clone();
        Self {
            worker: message.worker.clone(),
            uspx_version: message.uspx_version.clone(),
            speaks: Speaks { jobs, estimators, messages: message.reads.clone() },
            models: super::all(&message.models),
            threads: message.threads,
            memory_bytes: message.memory_bytes,
            device: message.device.clone(),
            current: message.current,
        }
    }
}

impl TryFrom<Heartbeat> for HeartbeatMessage {
    type Error = Unread;
    fn try_from(message: Heartbeat) -> Result<Self, Unread> {
        message.check()?;
        let Speaks { jobs, estimators, messages } = message.speaks;
        Ok(Self {
            worker: message.worker,
            uspx_version: message.uspx_version,
            speaks: uspx_domain::Speaks { jobs, estimators },
            reads: messages,
            models: super::try_all(message.models)?,
            threads: message.threads,
            memory_bytes: message.memory_bytes,
            device: message.device,
            current: message.current,
        })
    }
}

impl Heartbeat {
    /// What a worker says of itself is kept and shown: it is bounded before that.
    fn check(&self) -> Result<(), Unread> {
        let Speaks { jobs, estimators, messages } = &self.speaks;
        let lists = [self.models.len(), jobs.len(), estimators.len(), messages.len()];
        let names = jobs.iter().chain(estimators).chain(messages.keys());
        let texts = names.chain([&self.uspx_version, &self.device]);
        let mut texts = texts.chain(self.models.iter().map(|m| &m.architecture));
        let bounded = lists.iter().all(|n| *n <= MOST) && texts.all(|t| t.len() <= LONGEST);
        if bounded { Ok(()) } else { Err(Flaw::Bounds.into()) }
    }
}

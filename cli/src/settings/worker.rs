//! A worker's settings.

use crate::args::Precision;
use crate::connect::Address;
use crate::error::Result;
use crate::models;
use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};
use std::path::PathBuf;
use uspx_model::budget::Workload;
use uspx_worker::planning::Machine;

/// As they stand in the file; see the table for each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct WorkerFile {
    pub nats: String,
    pub credentials: Option<PathBuf>,
    pub namespace: Option<String>,
    pub store: String,
    pub name: String,
    pub models: Vec<PathBuf>,
    #[serde(default = "cpu")]
    pub device: String,
    pub dtype: Option<Precision>,
    /// A number of bytes, or `4GiB` say.
    #[serde(default, deserialize_with = "bytes")]
    pub memory: Option<u64>,
    #[serde(default)]
    pub stream: bool,
    pub batch_tokens: Option<usize>,
    pub worker_state: Option<PathBuf>,
}

fn cpu() -> String {
    "cpu".to_owned()
}

/// Bytes as a number, or with a unit.
fn bytes<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Said {
        Bytes(u64),
        Text(String),
    }
    let text = match Said::deserialize(from)? {
        Said::Bytes(bytes) => return Ok(Some(bytes)),
        Said::Text(text) => text,
    };
    let bytes: ByteSize = text.parse().map_err(serde::de::Error::custom)?;
    Ok(Some(bytes.as_u64()))
}

impl WorkerFile {
    /// Where the server is.
    pub fn address(&self) -> Address<'_> {
        let (credentials, namespace) = (self.credentials.as_deref(), self.namespace.as_deref());
        Address { url: &self.nats, credentials, namespace }
    }

    /// What of this machine may be used.
    pub fn machine(&self) -> Result<Machine> {
        let machine = Machine {
            device: models::device(&self.device)?,
            dtype: self.dtype.map(Into::into),
            memory: self.memory,
            stream: self.stream,
            batch_tokens: self.batch_tokens,
        };
        machine.dtype(Workload::Forward)?;
        Ok(machine)
    }
}

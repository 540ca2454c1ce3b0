//! `uspx worker`: this machine's part in a colony.

use crate::args::{Precision, WorkerArgs};
use crate::error::{CliError, Exit, Result};
use crate::models;
use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use uspx_artifact::{ArtifactError, Store};
use uspx_bus::{NatsBus, NatsOptions};
use uspx_domain::WorkerId;
use uspx_model::budget::Workload;
use uspx_runtime::{Shutdown, config};
use uspx_worker::planning::Machine;
use uspx_worker::{Agent, WorkerSettings};

/// How often a store that cannot be used yet is tried.
const AGAIN: Duration = Duration::from_secs(2);

/// What a worker needs to know, from file, environment and flags.
#[derive(Debug, Deserialize)]
struct Settings {
    name: String,
    nats: String,
    store: String,
    models: Vec<PathBuf>,
    #[serde(default = "cpu")]
    device: String,
    dtype: Option<Precision>,
    /// A number of bytes, or `4GiB` say.
    #[serde(default, deserialize_with = "bytes")]
    memory: Option<u64>,
    #[serde(default)]
    stream: bool,
    batch_tokens: Option<usize>,
    /// Not `state`: that is the coordinator's, and one file may serve both.
    worker_state: Option<PathBuf>,
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

impl Settings {
    /// What of this machine may be used.
    fn machine(&self) -> Result<Machine> {
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

/// The number of threads that flags, environment or file ask for: it is set before anything runs.
/// What is wrong with the file is told when all of it is read.
pub fn threads(args: &WorkerArgs) -> Option<usize> {
    #[derive(Deserialize)]
    struct Threads {
        threads: Option<std::num::NonZeroUsize>,
    }
    #[derive(Serialize)]
    struct NoFlags {}
    let read = || config::load::<Threads>(args.config.as_deref(), NoFlags {}).ok()?.threads;
    args.machine.threads.or_else(|| read().map(Into::into))
}

#[derive(Serialize)]
struct Flags<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nats: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<&'a [PathBuf]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<Precision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_state: Option<&'a Path>,
}

impl<'a> Flags<'a> {
    fn of(args: &'a WorkerArgs) -> Self {
        let machine = &args.machine;
        Self {
            name: args.name.as_deref(),
            nats: args.nats.as_deref(),
            store: args.store.as_deref(),
            models: args.models.as_deref(),
            device: machine.device.as_deref(),
            dtype: machine.dtype,
            memory: machine.memory.map(|bytes| bytes.as_u64()),
            stream: machine.stream.then_some(true),
            batch_tokens: machine.batch_tokens,
            worker_state: args.state.as_deref(),
        }
    }
}

/// Runs until Ctrl-C.
pub async fn run(args: &WorkerArgs, shutdown: &Shutdown) -> Result<()> {
    let settings: Settings = config::load(args.config.as_deref(), Flags::of(args))?;
    let id: WorkerId = settings.name.parse().map_err(|e| CliError::new(Exit::BadInput, e))?;
    let machine = settings.machine()?;
    if args.with_parent {
        end_with_parent(shutdown.clone());
    }
    let options = NatsOptions {
        client_name: format!("uspx worker {id}"),
        ..NatsOptions::new(&settings.nats)
    };
    let bus = Arc::new(NatsBus::connect(&options).await?);
    let Some(store) = store(&settings.store, shutdown).await? else { return Ok(()) };
    let state = settings.worker_state.map_or_else(|| state_of(&id), Ok)?;
    let mut worker = WorkerSettings::on_cpu(id, settings.models, state);
    worker.machine = machine;
    worker.device_name = settings.device;
    let agent = Agent::new(worker, bus, store)?;
    tracing::info!(target: "uspx::worker", "ready: {}", agent.means());
    Ok(agent.run(shutdown).await?)
}

/// The store, once it can be used: the coordinator may make it later, and a server may be away.
async fn store(url: &str, shutdown: &Shutdown) -> Result<Option<Store>> {
    let mut told = false;
    loop {
        let error = match Store::open(url) {
            Ok(store) => match store.check().await {
                Ok(()) => return Ok(Some(store)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if matches!(error, ArtifactError::Url { .. }) {
            return Err(error.into());
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(%error, "the store cannot be used yet: waiting for it");
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.cancelled() => return Ok(None),
        }
    }
}

/// The state folder of a worker that was not told one.
fn state_of(id: &WorkerId) -> Result<PathBuf> {
    let given = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = given.or_else(home).ok_or_else(|| {
        CliError::new(Exit::Usage, "there is no HOME to keep finished work in")
            .help("name a folder: --state DIR")
    })?;
    Ok(base.join("uspx").join(id.as_str()))
}

/// The parent holds the other end of standard input; when it dies, the end closes.
fn end_with_parent(shutdown: Shutdown) {
    tokio::spawn(async move {
        let mut input = tokio::io::stdin();
        let mut byte = [0];
        while matches!(input.read(&mut byte).await, Ok(n) if n > 0) {}
        shutdown.cancel();
    });
}

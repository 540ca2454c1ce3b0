//! `uspx worker`: this machine's part in a colony.

use crate::args::WorkerArgs;
use crate::error::{CliError, Exit, Result};
use crate::models;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use uspx_artifact::Store;
use uspx_bus::{NatsBus, NatsOptions};
use uspx_domain::WorkerId;
use uspx_runtime::{Shutdown, config};
use uspx_worker::{Agent, WorkerSettings};

/// What a worker needs to know, from file, environment and flags.
#[derive(Debug, Deserialize)]
struct Settings {
    name: String,
    nats: String,
    store: String,
    models: Vec<PathBuf>,
    #[serde(default = "cpu")]
    device: String,
    batch_tokens: Option<usize>,
}

fn cpu() -> String {
    "cpu".to_owned()
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
    batch_tokens: Option<usize>,
}

/// Runs until Ctrl-C.
pub async fn run(args: &WorkerArgs, shutdown: &Shutdown) -> Result<()> {
    let flags = Flags {
        name: args.name.as_deref(),
        nats: args.nats.as_deref(),
        store: args.store.as_deref(),
        models: args.models.as_deref(),
        device: args.device.as_deref(),
        batch_tokens: args.batch_tokens,
    };
    let settings: Settings = config::load(args.config.as_deref(), flags)?;
    let id: WorkerId = settings.name.parse().map_err(|e| CliError::new(Exit::BadInput, e))?;
    if args.with_parent {
        end_with_parent(shutdown.clone());
    }
    let options = NatsOptions {
        client_name: format!("uspx worker {id}"),
        ..NatsOptions::new(&settings.nats)
    };
    let bus = Arc::new(NatsBus::connect(&options).await?);
    let store = Store::open(&settings.store)?;
    store.check().await?;
    let mut worker = WorkerSettings::on_cpu(id, settings.models);
    worker.device = models::device(&settings.device)?;
    worker.device_name = settings.device;
    worker.batch_tokens = settings.batch_tokens.unwrap_or(worker.batch_tokens);
    let agent = Agent::new(worker, bus, store)?;
    tracing::info!("ready");
    Ok(agent.run(shutdown).await?)
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

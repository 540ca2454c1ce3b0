//! `uspx worker`: this machine's part in a colony.

use crate::args::WorkerArgs;
use crate::error::{CliError, Exit, Result};
use crate::settings::table::Role;
use crate::settings::{self, WorkerFile};
use crate::state;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use uspx_artifact::{ArtifactError, Store};
use uspx_domain::WorkerId;
use uspx_runtime::Shutdown;
use uspx_runtime::config::Sources;
use uspx_runtime::telemetry::TOLD;
use uspx_worker::{Agent, WorkerSettings};

/// How often a store that cannot be used yet is tried.
const AGAIN: Duration = Duration::from_secs(2);

/// The number of threads that flags, environment or file ask for: it is set before anything runs.
/// What is wrong with the file is told when all of it is read.
pub fn threads(args: &WorkerArgs) -> Option<usize> {
    let read = || {
        let sources = Sources::read(args.config.as_deref(), args).ok()?;
        sources.find::<NonZeroUsize>("threads").map(|(threads, _)| threads.into())
    };
    args.machine.threads.or_else(read)
}

/// Runs until Ctrl-C.
pub async fn run(args: &WorkerArgs, shutdown: &Shutdown) -> Result<()> {
    let settings: WorkerFile = settings::load(Role::Worker, args.config.as_deref(), args)?;
    let id: WorkerId = settings.name.parse().map_err(|e| CliError::new(Exit::BadInput, e))?;
    let machine = settings.machine()?;
    if args.with_parent {
        end_with_parent(shutdown.clone());
    }
    let bus = settings.address().connect(&format!("uspx worker {id}"), None).await?;
    let Some(store) = store(&settings.store, shutdown).await? else { return Ok(()) };
    let state = settings.worker_state.map_or_else(|| state_of(&id), Ok)?;
    let mut worker = WorkerSettings::on_cpu(id, settings.models, state);
    worker.machine = machine;
    worker.device_name = settings.device;
    let agent = Agent::new(worker, bus, store)?;
    tracing::info!(target: TOLD, "ready: {}", agent.means());
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
    let folder = state::folder().ok_or_else(|| {
        CliError::new(Exit::Usage, "there is no HOME to keep finished work in")
            .help("name a folder: --state DIR")
    })?;
    Ok(folder.join(id.as_str()))
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

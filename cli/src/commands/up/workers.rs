//! The workers of a colony of one machine: in this process, or processes of their own where the
//! colony is on a NATS server.

use super::Inputs;
use crate::error::{CliError, Exit, Result};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;
use uspx_artifact::Store;
use uspx_bus::Bus;
use uspx_domain::WorkerId;
use uspx_runtime::Shutdown;
use uspx_worker::{Agent, WorkerError, WorkerSettings};

/// How long worker processes have to end by themselves.
const PATIENCE: Duration = Duration::from_secs(10);

/// The workers, wherever they run.
pub(super) enum Workers {
    InProcess(tokio::sync::Mutex<JoinSet<std::result::Result<(), WorkerError>>>),
    Processes(tokio::sync::Mutex<Vec<Process>>),
}

/// A worker process and the standard input that it lives by. Kept apart: waiting for a child closes
/// its own.
pub(super) struct Process {
    name: String,
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl Workers {
    pub(super) fn in_process(
        inputs: &Inputs,
        bus: &Arc<dyn Bus>,
        store: &Store,
        end: &Shutdown,
    ) -> Result<Self> {
        let (mut tasks, machine) = (JoinSet::new(), &inputs.machine);
        for number in 1..=machine.workers {
            let id: WorkerId = name(number).parse().map_err(|e| CliError::new(Exit::Failed, e))?;
            let state = inputs.layout.worker(number);
            let mut settings = WorkerSettings::on_cpu(id, inputs.models.folders(), state);
            settings.heartbeat_every = Duration::from_millis(500);
            (settings.machine, settings.device_name) =
                (machine.each.clone(), machine.device.clone());
            let holdings = inputs.models.holdings.clone();
            let agent = Agent::holding(holdings, settings, bus.clone(), store.clone())?;
            let end = end.clone();
            tasks.spawn(async move { agent.run(&end).await });
        }
        Ok(Self::InProcess(tokio::sync::Mutex::new(tasks)))
    }

    /// `uspx worker` for each; they end when this process does, because it holds their standard
    /// input.
    pub(super) fn processes(inputs: &Inputs, nats: &str) -> Result<Self> {
        let program = std::env::current_exe().map_err(|e| CliError::new(Exit::Failed, e))?;
        let models: Vec<String> =
            inputs.models.folders().iter().map(|path| path.display().to_string()).collect();
        let (models, store) = (models.join(","), inputs.store_url());
        let mut children = Vec::new();
        for number in 1..=inputs.machine.workers {
            let name = name(number);
            let mut command = Command::new(&program);
            command.args(["worker", "--with-parent", "--name", &name, "--nats", nats]);
            command.args(["--store", &store, "--models", &models]);
            command.args(inputs.machine.flags());
            if let Some(path) = &inputs.credentials {
                command.arg("--credentials").arg(path);
            }
            if let Some(name) = &inputs.namespace {
                command.args(["--namespace", name]);
            }
            command.arg("--state").arg(inputs.layout.worker(number));
            command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
            let mut child = command
                .spawn()
                .map_err(|e| CliError::new(Exit::Failed, format!("worker {number}: {e}")))?;
            let lifeline = child.stdin.take();
            children.push(Process { name, child, lifeline });
        }
        Ok(Self::Processes(tokio::sync::Mutex::new(children)))
    }

    /// Returns when no worker is left: without one nothing goes on. A single lost worker costs only
    /// time.
    pub(super) async fn failure(&self) -> CliError {
        match self {
            Self::InProcess(tasks) => {
                let mut tasks = tasks.lock().await;
                let mut last = CliError::new(Exit::Failed, "all workers have ended");
                while let Some(ended) = tasks.join_next().await {
                    match ended {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => last = error.into(),
                        Err(error) => {
                            last =
                                CliError::new(Exit::Failed, format!("a worker panicked: {error}"))
                        }
                    }
                }
                last
            }
            Self::Processes(children) => {
                for process in children.lock().await.iter_mut() {
                    let ended = process.child.wait().await;
                    tracing::warn!(worker = process.name, ?ended, "a worker process has ended");
                }
                CliError::new(Exit::Failed, "all worker processes have ended")
                    .help("run again with -v to see why")
            }
        }
    }

    pub(super) async fn end(self) -> Result<()> {
        match self {
            Self::InProcess(tasks) => {
                let mut tasks = tasks.into_inner();
                while let Some(ended) = tasks.join_next().await {
                    if let Ok(Err(error)) = ended {
                        tracing::warn!(%error, "a worker ended badly");
                    }
                }
            }
            Self::Processes(children) => {
                let mut children = children.into_inner();
                // All at once, so that they end beside each other.
                children.iter_mut().for_each(|process| drop(process.lifeline.take()));
                for Process { name, mut child, .. } in children {
                    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                        tracing::warn!(worker = name, "a worker process did not end: killing it");
                        child.kill().await.map_err(|e| CliError::new(Exit::Failed, e))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn name(number: u16) -> String {
    format!("worker-{number}")
}

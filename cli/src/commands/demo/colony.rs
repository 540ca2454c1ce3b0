//! The demo's colony: the same coordinator and worker code whether in one process or over a real
//! network.

use super::{Layout, bars};
use crate::args::DemoArgs;
use crate::commands::coordinator::book;
use crate::error::{CliError, Exit, Result};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;
use uspx_artifact::Store;
use uspx_bus::server::NatsServer;
use uspx_bus::{Bus, EmbeddedBus, NatsBus, NatsOptions};
use uspx_colony::{CampaignReport, report};
use uspx_coordinator::{CampaignPlan, Coordinator, CoordinatorSettings, Finished};
use uspx_domain::WorkerId;
use uspx_runtime::Shutdown;
use uspx_worker::{Agent, WorkerError, WorkerSettings};

/// How the campaign went.
pub(super) struct Campaign {
    pub finished: Finished,
    pub figures: CampaignReport,
}

/// A silent worker's tasks go to another after this long: machines of one process or host answer at
/// once.
const SILENCE: Duration = Duration::from_secs(8);
/// A task without progress is delivered again after this long.
const LEASE: Duration = Duration::from_secs(30);
/// Tokens run together: with two workers in one process the demo stays well under 2 GiB.
const BATCH_TOKENS: usize = 2048;
/// How long the coordinator's readers have to end.
const READERS_WITHIN: Duration = Duration::from_secs(3);
/// How long worker processes have to end by themselves.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the campaign to its end, or until the end is asked for.
pub(super) async fn run(
    args: &DemoArgs,
    layout: &Layout,
    store_url: &str,
    shutdown: &Shutdown,
) -> Result<Campaign> {
    let store = Store::create(store_url)?;
    store.check().await?;
    let server = match args.nats.as_deref() {
        Some("auto") => Some(NatsServer::start(&layout.out.join("nats"), None)?),
        _ => None,
    };
    let nats = server.as_ref().map(NatsServer::url).or_else(|| args.nats.clone());
    let bus: Arc<dyn Bus> = match &nats {
        None => Arc::new(EmbeddedBus::default()),
        Some(url) => Arc::new(NatsBus::connect(&NatsOptions::new(url)).await?),
    };
    let mut coordinator = coordinator(layout, bus.clone(), store.clone())?;
    // The workers outlive the coordinator by a moment: it may still take their last answers.
    let workers_end = Shutdown::new();
    let workers = match &nats {
        None => Workers::in_process(args, layout, &bus, &store, &workers_end)?,
        Some(url) => Workers::processes(args, layout, url, store_url)?,
    };
    let bars = tokio::spawn(bars::show(coordinator.watch(), coordinator.state().explored().pairs));
    let outcome = tokio::select! {
        outcome = coordinator.run(shutdown) => outcome.map_err(CliError::from),
        // A terminal's Ctrl-C reaches worker processes too, and they may be faster.
        error = workers.failure() => if shutdown.is_cancelled() { Ok(Finished::Stopped) } else { Err(error) },
    };
    workers_end.cancel();
    bars.abort();
    workers.end().await?;
    let finished = outcome?;
    let figures = report(coordinator.state());
    drop(coordinator);
    forget(bus).await;
    drop(server);
    let figures =
        figures.ok_or_else(|| CliError::new(Exit::Interrupted, "stopped before it began"))?;
    Ok(Campaign { finished, figures })
}

/// Lets go of the bus once its readers have: a connection that outlives its server complains on the
/// terminal.
async fn forget(bus: Arc<dyn Bus>) {
    let end = Instant::now() + READERS_WITHIN;
    while Arc::strong_count(&bus) > 1 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn coordinator(layout: &Layout, bus: Arc<dyn Bus>, store: Store) -> Result<Coordinator> {
    let book =
        book(&layout.prompts("cli-train.jsonl"), None, &layout.prompts("cli-heldout.jsonl"))?;
    let mut settings = CoordinatorSettings::new("demo", layout.out.join("colony"));
    settings.silence = SILENCE;
    settings.lease = LEASE;
    settings.plan = plan();
    Ok(Coordinator::open(settings, bus, store, book)?)
}

/// The demo's campaign: the defaults, with the recipes that were tuned on the shipped student.
fn plan() -> CampaignPlan {
    let mut plan = CampaignPlan { name: Some("demo".to_owned()), ..CampaignPlan::default() };
    plan.distil.recipes = vec![uspx_distill::recipe_references(), uspx_distill::recipe_teacher()];
    plan
}

/// The workers, wherever they run.
enum Workers {
    InProcess(tokio::sync::Mutex<JoinSet<std::result::Result<(), WorkerError>>>),
    Processes(tokio::sync::Mutex<Vec<Process>>),
}

/// A worker process and the standard input that it lives by. Kept apart: waiting for a child closes
/// its own.
struct Process {
    name: String,
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl Workers {
    fn in_process(
        args: &DemoArgs,
        layout: &Layout,
        bus: &Arc<dyn Bus>,
        store: &Store,
        end: &Shutdown,
    ) -> Result<Self> {
        let mut tasks = JoinSet::new();
        for number in 1..=args.workers {
            let id: WorkerId = name(number).parse().map_err(|e| CliError::new(Exit::Failed, e))?;
            let models = vec![layout.model("teacher"), layout.model("student")];
            let mut settings = WorkerSettings::on_cpu(id, models, layout.worker(number));
            settings.heartbeat_every = Duration::from_millis(500);
            settings.batch_tokens = BATCH_TOKENS;
            let agent = Agent::new(settings, bus.clone(), store.clone())?;
            let end = end.clone();
            tasks.spawn(async move { agent.run(&end).await });
        }
        Ok(Self::InProcess(tokio::sync::Mutex::new(tasks)))
    }

    /// `uspx worker` for each; they end when this process does, because it holds their standard
    /// input.
    fn processes(args: &DemoArgs, layout: &Layout, nats: &str, store: &str) -> Result<Self> {
        let program = std::env::current_exe().map_err(|e| CliError::new(Exit::Failed, e))?;
        let models =
            format!("{},{}", layout.model("teacher").display(), layout.model("student").display());
        let mut children = Vec::new();
        for number in 1..=args.workers {
            let mut command = Command::new(&program);
            command.args([
                "worker",
                "--with-parent",
                "--name",
                &name(number),
                "--nats",
                nats,
                "--store",
                store,
            ]);
            command.args([
                "--models",
                &models,
                "--threads",
                &args.threads_per_worker().to_string(),
            ]);
            command.args(["--batch-tokens", &BATCH_TOKENS.to_string()]);
            command.arg("--state").arg(layout.worker(number));
            command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
            let mut child = command
                .spawn()
                .map_err(|e| CliError::new(Exit::Failed, format!("worker {number}: {e}")))?;
            let lifeline = child.stdin.take();
            children.push(Process { name: name(number), child, lifeline });
        }
        Ok(Self::Processes(tokio::sync::Mutex::new(children)))
    }

    /// Returns when no worker is left: without one nothing goes on. A single lost worker costs only
    /// time.
    async fn failure(&self) -> CliError {
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

    async fn end(self) -> Result<()> {
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

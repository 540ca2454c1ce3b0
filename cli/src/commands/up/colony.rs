//! A colony of one machine: the same coordinator and worker code whether in one process or over a
//! real network.

use super::workers::Workers;
use super::{Inputs, bars};
use crate::commands::coordinator::Conclusion;
use crate::connect::Address;
use crate::error::{CliError, Exit, Result};
use crate::progress;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uspx_artifact::{Store, TransferProgress};
use uspx_bus::server::NatsServer;
use uspx_bus::{Bus, EmbeddedBus};
use uspx_colony::{CampaignReport, Split, report};
use uspx_coordinator::{Coordinator, CoordinatorSettings, Finished};
use uspx_domain::Prompt;
use uspx_runtime::Shutdown;

/// How the campaign went.
pub(super) struct Campaign {
    pub finished: Finished,
    pub figures: CampaignReport,
    /// The prompts that it was judged on.
    pub held_out: Vec<Prompt>,
    pub conclusion: Conclusion,
}

/// A silent worker's tasks go to another after this long: machines of one process or host answer at
/// once.
const SILENCE: Duration = Duration::from_secs(8);
/// A task without progress is delivered again after this long.
const LEASE: Duration = Duration::from_secs(30);
/// How long the coordinator's readers have to end.
const READERS_WITHIN: Duration = Duration::from_secs(3);

/// Runs the campaign to its end, or until the end is asked for.
pub(super) async fn run(inputs: &Inputs, shutdown: &Shutdown) -> Result<Campaign> {
    let store = Store::create(&inputs.store_url())?;
    store.check().await?;
    bring_along(inputs, &store).await?;
    let server = match inputs.nats.as_deref() {
        Some("auto") => Some(NatsServer::start(&inputs.layout.folder("nats"), None)?),
        _ => None,
    };
    let nats = server.as_ref().map(NatsServer::url).or_else(|| inputs.nats.clone());
    let bus: Arc<dyn Bus> = match &nats {
        None => Arc::new(EmbeddedBus::default()),
        Some(url) => address(inputs, url).connect("uspx up", None).await?,
    };
    let mut coordinator = coordinator(inputs, bus.clone(), store.clone())?;
    // The workers outlive the coordinator by a moment: it may still take their last answers.
    let workers_end = Shutdown::new();
    let workers = match &nats {
        None => Workers::in_process(inputs, &bus, &store, &workers_end)?,
        Some(url) => Workers::processes(inputs, url)?,
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
    let held_out = coordinator.book().of(Split::Gate);
    let conclusion = Conclusion::of(&coordinator, figures.as_ref());
    drop(coordinator);
    forget(bus).await;
    drop(server);
    let figures =
        figures.ok_or_else(|| CliError::new(Exit::Interrupted, "stopped before it began"))?;
    Ok(Campaign { finished, figures, held_out, conclusion })
}

/// Where the server is.
fn address<'a>(inputs: &'a Inputs, url: &'a str) -> Address<'a> {
    let (credentials, namespace) = (inputs.credentials.as_deref(), inputs.namespace.as_deref());
    Address { url, credentials, namespace }
}

/// A colony that began with a folder of its own as the store takes its content along to another:
/// the ledger names what lies there.
async fn bring_along(inputs: &Inputs, store: &Store) -> Result<()> {
    let (own, note) = (inputs.layout.folder("store"), inputs.layout.folder("store-brought-to"));
    let done = std::fs::read_to_string(&note).is_ok_and(|url| url == store.url());
    if done || inputs.store.is_none() || !own.is_dir() {
        return Ok(());
    }
    let bar = progress::bytes("bringing the store along");
    let tell = |p: TransferProgress| {
        bar.set_length(p.total);
        bar.set_position(p.done);
    };
    store.bring(&Store::folder(&own)?, inputs.layout.out(), &tell).await?;
    bar.finish();
    std::fs::write(&note, store.url()).map_err(|e| CliError::file(&note, &e))
}

/// Lets go of the bus once its readers have: a connection that outlives its server complains on the
/// terminal.
async fn forget(bus: Arc<dyn Bus>) {
    let end = Instant::now() + READERS_WITHIN;
    while Arc::strong_count(&bus) > 1 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn coordinator(inputs: &Inputs, bus: Arc<dyn Bus>, store: Store) -> Result<Coordinator> {
    let mut settings = CoordinatorSettings::new(&inputs.name, inputs.layout.colony());
    (settings.silence, settings.lease) = (SILENCE, LEASE);
    settings.plan = inputs.plan.clone();
    Ok(Coordinator::open(settings, bus, store, inputs.prompts.clone())?)
}

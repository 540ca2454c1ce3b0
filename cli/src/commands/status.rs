//! `uspx status`: the colony at a glance, from the bus or from the coordinator's state folder.

use crate::args::StatusArgs;
use crate::connect::Address;
use crate::error::{CliError, Exit, Result};
use crate::output;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uspx_bus::{Bus, NatsBus};
use uspx_domain::{Coverage, SeamPrompts};
use uspx_runtime::Shutdown;
use uspx_wire::subjects::STATUS;
use uspx_wire::{ReasonStatus, StatusMessage, decode};

/// A glance should not wait long for a server that is not there.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where a status comes from.
enum Source<'a> {
    Bus(Arc<NatsBus>),
    Folder(&'a Path),
}

impl Source<'_> {
    async fn read(&self) -> Result<StatusMessage> {
        match self {
            Self::Bus(bus) => {
                let bytes = bus.get(STATUS).await?.ok_or_else(|| {
                    CliError::new(Exit::NotFound, "this NATS server knows of no colony")
                        .help("start one: uspx coordinator -c uspx.toml")
                })?;
                decode(&bytes).map_err(|e| CliError::new(Exit::Refused, e))
            }
            Self::Folder(folder) => {
                let path = folder.join("status.json");
                let text = std::fs::read(&path).map_err(|e| {
                    CliError::file(&path, &e).help(
                        "name the state folder of a coordinator that was started on this machine",
                    )
                })?;
                serde_json::from_slice(&text)
                    .map_err(|e| CliError::new(Exit::BadInput, format!("{}: {e}", path.display())))
            }
        }
    }
}

/// `uspx status`.
pub async fn run(args: &StatusArgs, shutdown: &Shutdown) -> Result<()> {
    let source = match (&args.bus.nats, &args.state) {
        (Some(url), _) => {
            let (credentials, namespace) =
                (args.bus.credentials.as_deref(), args.bus.namespace.as_deref());
            let address = Address { url, credentials, namespace };
            Source::Bus(address.connect("uspx status", Some(PATIENCE)).await?)
        }
        (None, Some(folder)) => Source::Folder(folder),
        (None, None) => {
            return Err(CliError::new(Exit::Usage, "which colony?").help(
                "name its server (--nats URL) or its coordinator's state folder (--state DIR)",
            ));
        }
    };
    loop {
        let status = source.read().await?;
        if args.json {
            output::json(&status)?
        } else {
            show(&status)?
        }
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

fn show(status: &StatusMessage) -> Result<()> {
    let mut table = output::table(&["colony", &status.colony]);
    table.add_row(["stage", &format!("{} (epoch {})", status.stage, status.epoch)]);
    let tasks = format!(
        "{} open, {} answered, {} given up",
        status.tasks_open, status.tasks_answered, status.tasks_failed
    );
    table.add_row(["tasks", &tasks]);
    if let Some(mask) = &status.mask {
        let text = format!(
            "version {}, keeps {:.0} %, stability {:.2}",
            mask.revision,
            mask.kept_fraction * 100.0,
            mask.stability
        );
        table.add_row(["mask", &text]);
    }
    if let Some(release) = status.release {
        table.add_row(["release", &release.to_string()]);
    }
    for row in reasons(status) {
        table.add_row(row);
    }
    for worker in &status.workers {
        let current =
            worker.current.map_or_else(String::new, |c| format!(", task {}/{}", c.done, c.total));
        let text =
            format!("{} on {}{current}, {} answers", worker.state, worker.device, worker.answered);
        table.add_row([format!("worker {}", worker.worker), text]);
    }
    output::line(&table.to_string())
}

/// What to bear in mind: why tasks failed, which prompts were left out or have a seam, how much of
/// the answers is labelled.
fn reasons(status: &StatusMessage) -> Vec<[String; 2]> {
    let counted = |what: &'static str| {
        move |r: &ReasonStatus| [what.to_owned(), format!("{} × {}: {}", r.count, r.work, r.reason)]
    };
    let labels = status
        .labels
        .iter()
        .map(|labels| ["labels".to_owned(), Coverage::from(*labels).to_string()]);
    let left_out = status.skipped.iter().map(|s| ["left out".to_owned(), s.text.clone()]);
    let given_up = status.given_up.iter().map(counted("given up"));
    let attempts = status.failed_attempts.iter().map(counted("failed attempts"));
    let seams = status
        .seam_prompts
        .iter()
        .flat_map(|seams| SeamPrompts::from(*seams).lines())
        .map(|line| ["seams".to_owned(), line]);
    labels.chain(left_out).chain(seams).chain(given_up).chain(attempts).collect()
}

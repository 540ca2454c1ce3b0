//! `uspx coordinator`: the colony's memory and mind, over NATS.

use crate::args::{CoordinatorArgs, WordCommand};
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::settings::table::Role;
use crate::settings::{self, CoordinatorFile};
use std::path::Path;
use std::time::Duration;
use uspx_artifact::Store;
use uspx_colony::advice::advise;
use uspx_colony::report::title;
use uspx_colony::{CampaignReport, Ending, report};
use uspx_coordinator::word::{self, Word};
use uspx_coordinator::{Coordinator, Finished};
use uspx_runtime::Shutdown;

/// Runs a campaign to its end, or until Ctrl-C.
pub async fn run(args: &CoordinatorArgs, shutdown: &Shutdown) -> Result<()> {
    match &args.word {
        Some(WordCommand::Retry(to)) => return say(&to.state, Word::Retry).await,
        Some(WordCommand::Abandon(to)) => return say(&to.state, Word::Abandon).await,
        None => {}
    }
    let settings: CoordinatorFile =
        settings::load(Role::Coordinator, args.config.as_deref(), args)?;
    let book = settings.book()?;
    let bus = settings.address().connect("uspx coordinator", None).await?;
    let store = Store::create(&settings.store)?;
    store.check().await?;
    let own = settings.service();
    let mut coordinator = Coordinator::open(own, bus, store, book)?;
    let finished = coordinator.run(shutdown).await?;
    concluded(finished, &coordinator)
}

/// Says how a run ended, with its figures, what would help, and where its report lies.
pub fn concluded(finished: Finished, coordinator: &Coordinator) -> Result<()> {
    let figures = report(coordinator.state());
    if let (Finished::Campaign(_), Some(figures)) = (&finished, &figures) {
        show(figures)?;
    }
    let report =
        coordinator.report_paths().map(|paths| format!("report: {}", paths.html.display()));
    match ended(finished) {
        Ok(()) => report.map_or(Ok(()), |line| output::line(&line)),
        Err(error) if figures.is_some() && report.is_some() => {
            let bound = coordinator.state().campaign().map_or(0.0, |c| c.distil.tag_worse);
            let advice = figures.map(|figures| advise(&figures, bound)).unwrap_or_default();
            let published = coordinator.state().published().map(|p| p.release);
            let stays = published.map(|release| format!("release {release} stays in use"));
            let lines = advice.iter().map(ToString::to_string).chain(stays).chain(report);
            Err(error.help(lines.collect::<Vec<_>>().join("\n")))
        }
        Err(error) => Err(error),
    }
}

/// The models on the gate prompts, as far as they were judged, and the gate's grounds.
fn show(figures: &CampaignReport) -> Result<()> {
    if figures.students.is_empty() {
        return Ok(());
    }
    output::line(&students(figures).to_string())?;
    let Some(gate) = &figures.gate else { return Ok(()) };
    let d = gate.difference;
    output::paragraph(&format!(
        "4 bits against {} on {} gate prompts: {:+.4} bits per byte, 95 % [{:+.4}, {:+.4}]",
        title(gate.rival, None),
        gate.prompts,
        d.mean,
        d.low,
        d.high
    ))
}

fn students(figures: &CampaignReport) -> output::Table {
    let heading = format!("on {} held-out prompts", figures.compared_prompts);
    let mut table = output::table(&[&heading, "bits per byte", "against the base, 95 %"]);
    for s in &figures.students {
        let against = s.against_base.map_or_else(
            || "-".to_owned(),
            |d| format!("{:+.3} [{:+.3}, {:+.3}]", d.mean, d.low, d.high),
        );
        let bits = format!("{:.3}", s.bits_per_byte);
        table.add_row([title(s.contender, figures.chosen_recipe), bits, against]);
    }
    table
}

/// Says a person's word, and waits a little for it to be taken.
async fn say(state: &Path, word: Word) -> Result<()> {
    word::say(state, word)?;
    for _ in 0..50 {
        if !word::is_waiting(state) {
            return output::line("the coordinator has taken it");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(CliError::new(Exit::NotFound, "no coordinator has taken it yet")
        .help("is one running on this state folder? It does so at its next start"))
}

/// Says how a run ended, with the exit code that belongs to it.
pub fn ended(finished: Finished) -> Result<()> {
    match finished {
        Finished::Campaign(Ending::Measured) => output::line("the mask is measured"),
        Finished::Campaign(Ending::Published(release)) => {
            output::line(&format!("published release {release}"))
        }
        Finished::Campaign(Ending::Refused(reason)) => Err(CliError::new(
            Exit::Refused,
            format!("the release gate refused the student: {reason}"),
        )
        .help(
            "the student published before stays in use; more prompts or another recipe may help",
        )),
        Finished::Campaign(Ending::Failed(reason)) => {
            Err(CliError::new(Exit::Failed, format!("the campaign failed: {reason}")))
        }
        Finished::Stopped => Err(CliError::new(
            Exit::Interrupted,
            "stopped; started again, it goes on from the ledger",
        )),
    }
}

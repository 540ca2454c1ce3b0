//! `uspx coordinator`: the colony's memory and mind, over NATS.

use crate::args::{CoordinatorArgs, WordCommand};
use crate::error::{CliError, Exit, Result};
use crate::settings::table::Role;
use crate::settings::{self, CoordinatorFile};
use crate::{figures, output};
use std::path::Path;
use std::time::Duration;
use uspx_artifact::Store;
use uspx_colony::advice::advise;
use uspx_colony::{CampaignReport, Ending};
use uspx_coordinator::word::{self, Word};
use uspx_coordinator::{Coordinator, Finished};
use uspx_runtime::Shutdown;

/// Runs a campaign to its end, or until Ctrl-C.
pub async fn run(args: &CoordinatorArgs, shutdown: &Shutdown) -> Result<()> {
    match &args.word {
        Some(WordCommand::Retry(to)) => return say(&to.state, Word::Retry).await,
        Some(WordCommand::Abandon(to)) => return say(&to.state, Word::Abandon).await,
        Some(WordCommand::Build(to)) => return say(&to.state, Word::Build).await,
        Some(WordCommand::Hold(to)) => return say(&to.state, Word::Hold).await,
        Some(WordCommand::Resume(to)) => return say(&to.state, Word::Resume).await,
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
    let figures = uspx_colony::report(coordinator.state());
    if let (Finished::Campaign(_), Some(figures)) = (&finished, &figures) {
        figures::show(figures)?;
    }
    Conclusion::of(&coordinator, figures.as_ref()).tell(finished)
}

/// What is said of a campaign's end beside how it ended.
#[derive(Debug)]
pub struct Conclusion {
    /// What would help, where it did not end well.
    advice: Vec<String>,
    /// Where its report lies.
    report: Option<String>,
}

impl Conclusion {
    /// Of the coordinator's campaign, whose figures these are.
    pub fn of(coordinator: &Coordinator, figures: Option<&CampaignReport>) -> Self {
        let state = coordinator.state();
        let report =
            coordinator.report_paths().map(|paths| format!("report: {}", paths.html.display()));
        let bound = state.campaign().map_or(0.0, |c| c.distil.tag_worse);
        let advice = figures.map(|figures| advise(figures, bound)).unwrap_or_default();
        let published = state.published().map(|p| p.release);
        let stays = published.map(|release| format!("release {release} stays in use"));
        let advice = advice.iter().map(ToString::to_string).chain(stays).collect();
        Self { advice, report }
    }

    /// Says how a run ended, with the exit code that belongs to it, what would help, and on the last
    /// line where the report lies.
    pub fn tell(self, finished: Finished) -> Result<()> {
        match ended(finished) {
            Ok(()) => self.report.map_or(Ok(()), |line| output::line(&line)),
            Err(error) if self.report.is_some() => {
                let lines: Vec<String> = self.advice.into_iter().chain(self.report).collect();
                Err(error.help(lines.join("\n")))
            }
            Err(error) => Err(error),
        }
    }
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
fn ended(finished: Finished) -> Result<()> {
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

//! `uspx coordinator`: the colony's memory and mind, over NATS.

use crate::args::{CoordinatorArgs, WordCommand};
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::settings::table::Role;
use crate::settings::{self, CoordinatorFile};
use std::path::Path;
use std::time::Duration;
use uspx_artifact::Store;
use uspx_colony::Ending;
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
    ended(coordinator.run(shutdown).await?)
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

//! `uspx coordinator`: the colony's memory and mind, over NATS.

use crate::args::{CoordinatorArgs, WordCommand};
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::prompts::PromptSource;
use crate::secrets;
use crate::splits::SplitSources;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uspx_artifact::Store;
use uspx_bus::{NatsBus, NatsOptions};
use uspx_colony::Ending;
use uspx_coordinator::word::{self, Word};
use uspx_coordinator::{CampaignPlan, Coordinator, CoordinatorSettings, Finished, PromptBook};
use uspx_domain::PromptFormat;
use uspx_runtime::{Shutdown, config};

/// What a coordinator needs to know, from file, environment and flags.
#[derive(Debug, Deserialize)]
struct Settings {
    #[serde(default = "colony")]
    colony: String,
    nats: String,
    store: String,
    state: PathBuf,
    train: PathBuf,
    validation: Option<PathBuf>,
    gate: PathBuf,
    /// Seconds.
    silence: Option<u64>,
    /// Seconds.
    lease: Option<u64>,
    /// Seconds that the claim on the colony may stand unrenewed.
    takeover: Option<u64>,
    #[serde(default)]
    text: bool,
    #[serde(default)]
    skip_bad: bool,
    #[serde(default)]
    allow_secrets: bool,
    #[serde(default)]
    campaign: CampaignPlan,
}

fn colony() -> String {
    "home".to_owned()
}

impl Settings {
    fn source<'a>(&self, path: &'a Path) -> PromptSource<'a> {
        let format = if self.text { PromptFormat::Text } else { PromptFormat::JsonLines };
        PromptSource { path, format, skip_bad: self.skip_bad }
    }

    /// The prompts, which are about to leave this machine.
    fn book(&self) -> Result<PromptBook> {
        let sources = SplitSources {
            train: self.source(&self.train),
            validation: self.validation.as_deref().map(|path| self.source(path)),
            gate: self.source(&self.gate),
        };
        let splits = sources.read()?;
        secrets::check(&splits.files(), self.allow_secrets)?;
        splits.book()
    }
}

/// Runs a campaign to its end, or until Ctrl-C.
pub async fn run(args: &CoordinatorArgs, shutdown: &Shutdown) -> Result<()> {
    match &args.word {
        Some(WordCommand::Retry(to)) => return say(&to.state, Word::Retry).await,
        Some(WordCommand::Abandon(to)) => return say(&to.state, Word::Abandon).await,
        None => {}
    }
    let settings: Settings = config::load(args.config.as_deref(), args)?;
    let book = settings.book()?;
    let options = NatsOptions {
        client_name: "uspx coordinator".to_owned(),
        ..NatsOptions::new(&settings.nats)
    };
    let bus = Arc::new(NatsBus::connect(&options).await?);
    let store = Store::create(&settings.store)?;
    store.check().await?;
    let mut own = CoordinatorSettings::new(settings.colony, settings.state);
    own.silence = settings.silence.map_or(own.silence, Duration::from_secs);
    own.lease = settings.lease.map_or(own.lease, Duration::from_secs);
    own.takeover = settings.takeover.map_or(own.takeover, Duration::from_secs);
    own.plan = settings.campaign;
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

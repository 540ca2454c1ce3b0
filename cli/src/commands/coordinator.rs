//! `uspx coordinator`: the colony's memory and mind, over NATS.

use crate::args::{CoordinatorArgs, WordCommand};
use crate::error::{CliError, Exit, Result};
use crate::{models, output};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uspx_artifact::Store;
use uspx_bus::{NatsBus, NatsOptions};
use uspx_colony::advice::advise;
use uspx_colony::report::title;
use uspx_colony::{CampaignReport, Ending, report};
use uspx_coordinator::word::{self, Word};
use uspx_coordinator::{CampaignPlan, Coordinator, CoordinatorSettings, Finished, PromptBook};
use uspx_domain::Prompt;
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
    campaign: CampaignPlan,
}

fn colony() -> String {
    "home".to_owned()
}

#[derive(Serialize)]
struct Flags<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    nats: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    train: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<&'a Path>,
}

/// Runs a campaign to its end, or until Ctrl-C.
pub async fn run(args: &CoordinatorArgs, shutdown: &Shutdown) -> Result<()> {
    match &args.word {
        Some(WordCommand::Retry(to)) => return say(&to.state, Word::Retry).await,
        Some(WordCommand::Abandon(to)) => return say(&to.state, Word::Abandon).await,
        None => {}
    }
    let flags = Flags {
        nats: args.nats.as_deref(),
        store: args.store.as_deref(),
        state: args.state.as_deref(),
        train: args.train.as_deref(),
        validation: args.validation.as_deref(),
        gate: args.gate.as_deref(),
    };
    let settings: Settings = config::load(args.config.as_deref(), flags)?;
    let book = book(&settings.train, settings.validation.as_deref(), &settings.gate)?;
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

/// The prompts of the three splits. Without a validation file the last twentieth of the training
/// prompts serves.
pub fn book(train: &Path, validation: Option<&Path>, gate: &Path) -> Result<PromptBook> {
    let mut train_prompts = models::prompts(train, false)?;
    let validation = match validation {
        Some(path) => models::prompts(path, false)?,
        None => {
            let held = (train_prompts.len() / 20).max(1);
            train_prompts.split_off(train_prompts.len().saturating_sub(held))
        }
    };
    if train_prompts.is_empty() {
        return Err(CliError::new(Exit::BadInput, format!("{}: too few prompts", train.display()))
            .help("give at least two, or name --validation prompts of their own"));
    }
    let gate = models::prompts(gate, false)?;
    no_prompt_twice(&train_prompts, &validation, &gate)?;
    Ok(PromptBook::new(train_prompts, validation, gate))
}

/// A gate prompt that is trained on judges nothing.
fn no_prompt_twice(train: &[Prompt], validation: &[Prompt], gate: &[Prompt]) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    match train.iter().chain(validation).chain(gate).find(|p| !seen.insert(p.id.as_str())) {
        None => Ok(()),
        Some(twice) => Err(CliError::new(
            Exit::BadInput,
            format!("prompt {} stands in two of the prompt files", twice.id),
        )
        .help("held-out prompts must not be trained on: take it out of one of them")),
    }
}

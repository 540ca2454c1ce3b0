//! What `uspx up` is to run: from file, environment and flags.

use super::{Inputs, Layout, Machine, Models};
use crate::args::UpArgs;
use crate::error::{CliError, Exit, Result};
use crate::prompts::{PromptFile, PromptSource};
use crate::secrets;
use crate::settings::{home, sources};
use crate::splits::SplitSources;
use serde::Deserialize;
use std::path::PathBuf;
use uspx_colony::Share;
use uspx_coordinator::{CampaignPlan, Prompts};

/// The settings. One file may serve `up`, `coordinator` and `worker`.
#[derive(Debug, Deserialize)]
struct Settings {
    colony: Option<String>,
    teacher: PathBuf,
    student: Option<PathBuf>,
    prompts: Option<PathBuf>,
    train: Option<PathBuf>,
    validation: Option<PathBuf>,
    gate: Option<PathBuf>,
    out: Option<PathBuf>,
    store: Option<String>,
    nats: Option<String>,
    credentials: Option<PathBuf>,
    namespace: Option<String>,
    #[serde(default)]
    campaign: CampaignPlan,
}

/// Reads them.
pub(super) fn inputs(args: &UpArgs) -> Result<Inputs> {
    let sources = sources(args.config.as_deref(), &args.values)?;
    let mut settings: Settings = sources.settings()?;
    if let Some(keep) = args.keep {
        settings.campaign.mask.keep = share(keep)?;
    }
    if let Some(layers) = &args.sae_layers {
        settings.campaign.sae.layers.clone_from(layers);
    }
    let prompts = prompts(&settings, args)?;
    let machine = Machine::of(&args.machine, args.workers(), args.threads_per_worker())?;
    let models = Models::look(settings.teacher.clone(), settings.student.clone())?;
    models.name_in(&mut settings.campaign);
    let out = settings.out.clone().unwrap_or_else(|| PathBuf::from("uspx-up"));
    Ok(Inputs {
        name: settings.colony.unwrap_or_else(home),
        layout: Layout::new(&out)?,
        models,
        prompts,
        plan: settings.campaign,
        store: settings.store,
        nats: settings.nats,
        credentials: settings.credentials,
        namespace: settings.namespace,
        machine,
        held_out: settings.gate,
        json: args.json,
    })
}

fn share(keep: f64) -> Result<Share> {
    if keep > 0.0 && keep <= 1.0 {
        return Ok(Share::nearest(keep));
    }
    let message = format!("--keep {keep} is not a share: above 0, at most 1");
    Err(CliError::new(Exit::Usage, message))
}

/// One file, split by itself, or a file for each split.
fn prompts(settings: &Settings, args: &UpArgs) -> Result<Prompts> {
    let source = |path| PromptSource::new(path, args.text, args.skip_bad);
    match (settings.prompts.as_deref(), settings.train.as_deref(), settings.gate.as_deref()) {
        (Some(all), None, None) => {
            let file = source(all).read()?;
            check(&[&file], settings, args)?;
            Ok(Prompts::Together(file.prompts))
        }
        (None, Some(train), Some(gate)) => {
            let validation = settings.validation.as_deref().map(source);
            let sources = SplitSources { train: source(train), validation, gate: source(gate) };
            let splits = sources.read()?;
            check(&splits.files(), settings, args)?;
            Ok(splits.book()?.into())
        }
        _ => Err(CliError::new(Exit::Usage, "which prompts?").help(
            "name one file, which is split by itself (--prompts FILE), or files for training and for the gate \
             (--train FILE --gate FILE)",
        )),
    }
}

/// Prompts that may leave this machine, over a server or to a bucket, must hold no secrets.
fn check(files: &[&PromptFile], settings: &Settings, args: &UpArgs) -> Result<()> {
    let elsewhere = |url: &String| url.starts_with("s3://");
    match settings.nats.is_some() || settings.store.as_ref().is_some_and(elsewhere) {
        true => secrets::check(files, args.allow_secrets),
        false => Ok(()),
    }
}

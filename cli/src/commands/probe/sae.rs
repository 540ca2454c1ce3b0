//! `uspx probe sae`: a sparse autoencoder on one layer, trained here or brought along, judged by
//! grafting, its features ranked by what they tell about good answers.

mod confirm;
mod page;

use super::super::{HELD_OUT, held_out};
use crate::args::SaeArgs;
use crate::error::{CliError, Exit, Result};
use crate::left_out;
use crate::models::{self, Opened};
use crate::output;
use crate::progress::Bar;
use crate::saes;
use confirm::{Confirmed, confirm};
use page::{EvaluationReport, SaeReport, TrainingReport};
use std::fs;
use std::path::Path;
use std::time::Instant;
use uspx_domain::Prompt;
use uspx_model::budget::Workload;
use uspx_model::{LoadedModel, Readable};
use uspx_runtime::{Shutdown, memory};
use uspx_sae::attach::layer_of;
use uspx_sae::evaluate::EvaluateRequest;
use uspx_sae::fit::Keep;
use uspx_sae::rank::{Ranked, rank};
use uspx_sae::saelens::{self, About};
use uspx_sae::select::Select;
use uspx_sae::{
    Evaluation, FitRequest, Place, Recipe, Sae, SaeError, Site, attach, evaluate, fit,
    memory as sae_memory,
};

/// The training's state, in the folder that the SAE will be in.
const CHECKPOINT: &str = "checkpoint.safetensors";

/// A trained SAE, and what to say of it.
struct Subject {
    sae: Sae<f32>,
    place: Place,
    skip: usize,
    training: Option<TrainingReport>,
}

/// `uspx probe sae`.
pub fn run(args: &SaeArgs, shutdown: &Shutdown) -> Result<()> {
    match (&args.eval, &args.out) {
        (Some(folder), _) => judge_another(args, folder, shutdown),
        (None, Some(out)) => train(args, out, shutdown),
        (None, None) => Err(CliError::new(Exit::Usage, "name a folder to write to: --out DIR")),
    }
}

/// Judges the SAE in a folder.
fn judge_another(args: &SaeArgs, folder: &Path, shutdown: &Shutdown) -> Result<()> {
    let (sae, about) = saelens::read(folder)?;
    let place = place_of(args, &about)?;
    let prompts = limited(args)?;
    check_confirm(args, place, args.recipe.skip_first.unwrap_or(about.skip))?;
    let beside = sae_memory::of_judging(sae.parameters.features()).most(sae_memory::of_units(&sae));
    let common = &args.common;
    let opened = models::opened_beside(&common.model, &common.run, (Workload::Forward, beside))?;
    about.check(opened.model.fingerprint)?;
    let judged = models::answered((&opened.model, opened.room), prompts, &args.common, shutdown)?;
    let skip = args.recipe.skip_first.unwrap_or(about.skip);
    report(args, opened, &judged, Subject { sae, place, skip, training: None }, shutdown)
}

/// Where an SAE that was brought along sits: as its files say, as far as the flags do not.
fn place_of(args: &SaeArgs, about: &About) -> Result<Place> {
    let site = args.site.or(about.place.map(|place| place.site));
    match (args.layer.or(about.place.map(|place| place.layer)), site) {
        (Some(layer), Some(site)) => Ok(Place { layer, site }),
        _ => Err(saes::no_place(about).help("say where it sits: --layer N --site resid-post")),
    }
}

/// Trains an SAE, writes it and judges it.
fn train(args: &SaeArgs, out: &Path, shutdown: &Shutdown) -> Result<()> {
    let recipe = args.recipe.recipe();
    recipe.check().map_err(|why| SaeError::Recipe(why.to_owned()))?;
    let (mut prompts, judged) = split(args)?;
    let (common, beside) = (&args.common, sae_memory::of_training(&recipe));
    let beside = beside.most(sae_memory::of_judging(recipe.features));
    let opened = models::opened_beside(&common.model, &common.run, (Workload::Forward, beside))?;
    let place = place_here(args, &opened.model)?;
    check_confirm(args, place, recipe.skip)?;
    prepare(out, args.resume)?;
    let done =
        train_in(args, out, (&opened, place, recipe), std::mem::take(&mut prompts), shutdown);
    if done.is_err() {
        // Only goes where it is empty: a checkpoint stays.
        let _ = fs::remove_dir(out);
    }
    let subject = done?;
    let judged = models::answered((&opened.model, opened.room), judged, &args.common, shutdown)?;
    report(args, opened, &judged, subject, shutdown)
}

fn train_in(
    args: &SaeArgs,
    out: &Path,
    (opened, place, recipe): (&Opened, Place, Recipe),
    prompts: Vec<Prompt>,
    shutdown: &Shutdown,
) -> Result<Subject> {
    let Opened { model, batch_tokens, room, .. } = opened;
    let prompts = models::answered((model, *room), prompts, &args.common, shutdown)?;
    let checkpoint = out.join(CHECKPOINT);
    let keep = Keep { file: &checkpoint, every: args.save_every as u64, resume: args.resume };
    let request = FitRequest {
        model,
        prompts: &prompts,
        place,
        recipe,
        batch_tokens: *batch_tokens,
        keep: Some(keep),
    };
    let bar = Bar::new("training", args.common.run.json, shutdown);
    let start = Instant::now();
    let fitted = fit(&request, &bar)?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish();
    let name = uspx_model::model_name(&args.common.model);
    let about = About::trained(&name, model.fingerprint, place, recipe.skip);
    let told = serde_json::to_value(recipe).map_err(|e| CliError::new(Exit::Failed, e))?;
    saelens::write(out, &fitted.sae, &about, &told)?;
    // The SAE is there: its training is over.
    if checkpoint.exists() {
        fs::remove_file(&checkpoint).map_err(|e| CliError::file(&checkpoint, &e))?;
    }
    let training = TrainingReport {
        prompts: prompts.sequences.len(),
        steps: fitted.steps,
        resumed_steps: fitted.resumed,
        tokens: fitted.tokens,
        seconds,
        tokens_per_second: fitted.tokens as f64 / seconds,
        last_loss: fitted.last.loss,
    };
    Ok(Subject { sae: fitted.sae, place, skip: recipe.skip, training: Some(training) })
}

/// The prompts of --prompts, as many as asked for.
fn limited(args: &SaeArgs) -> Result<Vec<Prompt>> {
    let mut all = args.common.source().read()?.prompts;
    all.truncate(args.common.limit.unwrap_or(usize::MAX));
    Ok(all)
}

/// The prompts to train on, and those to judge by.
fn split(args: &SaeArgs) -> Result<(Vec<Prompt>, Vec<Prompt>)> {
    let mut train = limited(args)?;
    let judged = match &args.heldout {
        Some(file) => {
            let common = &args.common;
            crate::prompts::PromptSource::new(file, common.text, common.skip_bad).read()?.prompts
        }
        None => {
            let why = "to judge by (--heldout FILE names others)";
            held_out(&mut train, HELD_OUT, args.recipe.seed, why)
        }
    };
    if train.is_empty() || judged.is_empty() {
        let message = "at least one prompt to train on and one to judge by are needed";
        return Err(CliError::new(Exit::BadInput, message).help("give more prompts"));
    }
    Ok((train, judged))
}

fn place_here(args: &SaeArgs, model: &LoadedModel) -> Result<Place> {
    let layers = model.transformer.layers();
    let layer = args.layer.unwrap_or(layers.saturating_sub(1) / 2);
    if layer >= layers {
        return Err(CliError::new(Exit::Usage, format!("the model has no layer {layer}"))
            .help(format!("its layers are 0 to {}", layers.saturating_sub(1))));
    }
    Ok(Place { layer, site: args.site.unwrap_or(Site::ResidPost) })
}

/// Makes the folder, or finds in it what to go on from.
fn prepare(out: &Path, resume: bool) -> Result<()> {
    let holds = |name: &str| out.join(name).exists();
    let refuse = |exit, what: &str, help: &str| {
        Err(CliError::new(exit, format!("{} {what}", out.display())).help(help))
    };
    match (resume, holds(CHECKPOINT)) {
        (true, true) => Ok(()),
        (true, false) => {
            refuse(Exit::NotFound, "holds no checkpoint", "leave out --resume to train anew")
        }
        (false, true) => refuse(
            Exit::BadInput,
            "holds a training that was interrupted",
            "go on with --resume, or name another folder: --out DIR",
        ),
        (false, false)
            if out.exists() && fs::read_dir(out).map_or(true, |mut e| e.next().is_some()) =>
        {
            refuse(
                Exit::BadInput,
                "is there already",
                "name a folder that is not there yet: --out DIR",
            )
        }
        (false, false) => fs::create_dir_all(out).map_err(|e| CliError::file(out, &e)),
    }
}

fn report(
    args: &SaeArgs,
    opened: Opened,
    judged: &Readable,
    subject: Subject,
    shutdown: &Shutdown,
) -> Result<()> {
    let Opened { mut model, batch_tokens, .. } = opened;
    let Subject { sae, place, skip, training } = subject;
    let bar = Bar::new("evaluating", args.common.run.json, shutdown);
    let start = Instant::now();
    let request =
        EvaluateRequest { model: &model, prompts: judged, place, sae: &sae, batch_tokens, skip };
    let found = evaluate(&request, &bar)?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish();
    let (features, ranking) = ranked(&sae, &found);
    let (kind, k) = match &sae.select {
        Select::TopK(k) | Select::BatchTopK(k) => ("topk", Some(*k)),
        Select::Above(_) => ("jumprelu", None),
        Select::Positive => ("standard", None),
    };
    let (best, of) = (ranking.get(..args.confirm).unwrap_or(&ranking), (place, skip));
    let judged_by = (judged, batch_tokens);
    let confirmed = confirmed(args, (&mut model, sae, of), (best, judged_by), shutdown)?;
    let report = SaeReport {
        model: model.fingerprint,
        layer: place.layer,
        unit_layer: layer_of(place).unwrap_or(place.layer),
        site: place.site.name(),
        kind,
        features,
        k,
        out: args.out.clone(),
        training,
        evaluation: EvaluationReport::new(&found, seconds),
        ranking,
        confirmed,
        streamed: model.transformer.is_streamed(),
        batch_tokens,
        peak_rss_bytes: memory::peak_rss(),
        skipped: left_out::listed(&judged.skipped),
    };
    if args.common.run.json { output::json(&report) } else { page::print(&report, args.top) }
}

/// The best features taken out of the model, which has them as units from now on.
fn confirmed(
    args: &SaeArgs,
    (model, sae, of): (&mut LoadedModel, Sae<f32>, (Place, usize)),
    (best, (judged, batch_tokens)): (&[Ranked], (&Readable, usize)),
    shutdown: &Shutdown,
) -> Result<Vec<Confirmed>> {
    if args.confirm == 0 {
        return Ok(Vec::new());
    }
    attach(model, sae, of)?;
    let bar = Bar::new("confirming", args.common.run.json, shutdown);
    let confirmed = confirm((model, layer_of(of.0)?), best, judged, batch_tokens, &bar)?;
    bar.finish();
    Ok(confirmed)
}

/// How many features there are, and those that are active by what they tell.
fn ranked(sae: &Sae<f32>, found: &Evaluation) -> (usize, Vec<Ranked>) {
    let features = sae.parameters.features();
    (features, rank(&found.activity, &found.losses, features))
}

/// Refuses --confirm where features are no units, before anything is trained.
fn check_confirm(args: &SaeArgs, place: Place, skip: usize) -> Result<()> {
    if args.confirm == 0 {
        return Ok(());
    }
    layer_of(place)?;
    if skip > 0 { Err(SaeError::Skips(skip).into()) } else { Ok(()) }
}

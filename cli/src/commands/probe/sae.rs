//! `uspx probe sae`: a sparse autoencoder on one layer, trained here or brought along, judged by
//! grafting, its features ranked by what they tell about good answers.

use super::super::held_out;
use super::confirm::{self, Confirmed, confirm};
use crate::args::SaeArgs;
use crate::error::{CliError, Exit, Result};
use crate::left_out::{self, LeftOut};
use crate::models::{self, Opened};
use crate::output;
use crate::progress::Bar;
use crate::saes;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use uspx_domain::{Fingerprint, Prompt};
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

/// The JSON form.
#[derive(Serialize)]
struct SaeReport {
    model: Fingerprint,
    layer: usize,
    site: &'static str,
    kind: &'static str,
    features: usize,
    /// None of an SAE that chooses by thresholds.
    k: Option<usize>,
    out: Option<PathBuf>,
    training: Option<TrainingReport>,
    evaluation: EvaluationReport,
    /// What the features tell about good answers (a loss below the median), the most telling first.
    ranking: Vec<Ranked>,
    /// Of --confirm: the most telling ones, taken out of the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    confirmed: Vec<Confirmed>,
    streamed: bool,
    batch_tokens: usize,
    peak_rss_bytes: Option<u64>,
    skipped: Vec<LeftOut>,
}

#[derive(Serialize)]
struct TrainingReport {
    prompts: usize,
    steps: u64,
    /// Steps that a checkpoint brought along.
    resumed_steps: u64,
    /// Tokens learned from in this run.
    tokens: u64,
    seconds: f64,
    tokens_per_second: f64,
    /// The last step's unexplained share of the variance.
    last_loss: f64,
}

#[derive(Serialize)]
struct EvaluationReport {
    prompts: usize,
    tokens: u64,
    l0: f64,
    explained_variance: f64,
    /// Features that are active on none of these tokens.
    dead_features: usize,
    /// Nats per response token: untouched, with the SAE's reconstruction, with zeros, with the mean.
    clean_loss: f64,
    sae_loss: f64,
    zero_loss: f64,
    mean_loss: f64,
    /// (zero − sae) ÷ (zero − clean).
    loss_recovered: f64,
    /// (mean − sae) ÷ (mean − clean).
    loss_recovered_over_mean: f64,
    /// KL from the untouched model, nats per response token.
    kl: f64,
    zero_kl: f64,
    mean_kl: f64,
    /// 1 − kl ÷ zero_kl.
    kl_recovered: f64,
    seconds: f64,
}

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
    recipe.check()?;
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
    let Opened { model, batch_tokens, room } = opened;
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
        None => held_out(&mut train, args.recipe.seed, "to judge by (--heldout FILE names others)"),
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
    let confirmed = match args.confirm {
        0 => Vec::new(),
        most => {
            attach(&mut model, sae, (place, skip))?;
            let bar = Bar::new("confirming", args.common.run.json, shutdown);
            let best = ranking.get(..most).unwrap_or(&ranking);
            let of = (&model, layer_of(place)?);
            let confirmed = confirm(of, best, judged, batch_tokens, &bar)?;
            bar.finish();
            confirmed
        }
    };
    let report = SaeReport {
        model: model.fingerprint,
        layer: place.layer,
        site: place.site.name(),
        kind,
        features,
        k,
        out: args.out.clone(),
        training,
        evaluation: told(&found, seconds),
        ranking,
        confirmed,
        streamed: model.transformer.is_streamed(),
        batch_tokens,
        peak_rss_bytes: memory::peak_rss(),
        skipped: left_out::listed(&judged.skipped),
    };
    if args.common.run.json { output::json(&report) } else { print(&report, args.top) }
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

fn told(found: &Evaluation, seconds: f64) -> EvaluationReport {
    let Evaluation { sae, zero, mean, .. } = found;
    EvaluationReport {
        prompts: found.losses.len(),
        tokens: found.tokens,
        l0: found.l0,
        explained_variance: found.explained_variance,
        dead_features: found.dead(),
        clean_loss: found.clean,
        sae_loss: sae.loss,
        zero_loss: zero.loss,
        mean_loss: mean.loss,
        loss_recovered: found.recovered(zero),
        loss_recovered_over_mean: found.recovered(mean),
        kl: sae.kl,
        zero_kl: zero.kl,
        mean_kl: mean.kl,
        kl_recovered: found.kl_recovered(zero),
        seconds,
    }
}

fn print(report: &SaeReport, top: usize) -> Result<()> {
    let SaeReport { evaluation: e, layer, site, kind, features, .. } = report;
    if let Some(TrainingReport { prompts, steps, seconds, tokens_per_second, .. }) =
        &report.training
    {
        output::paragraph(&format!(
            "trained on {prompts} prompts in {steps} steps and {}, {tokens_per_second:.0} tokens per second",
            output::time(*seconds)
        ))?;
    }
    output::paragraph(&format!(
        "a {kind} SAE of {features} features at {site} of layer {layer}, judged on {} prompts:",
        e.prompts
    ))?;
    let mut table = output::table(&["in its place", "loss", "KL"]);
    let rows = [
        ("nothing: the model as it is", e.clean_loss, 0.0),
        ("the SAE's reconstruction", e.sae_loss, e.kl),
        ("the mean", e.mean_loss, e.mean_kl),
        ("zeros", e.zero_loss, e.zero_kl),
    ];
    for (name, loss, kl) in rows {
        table.add_row([name.to_owned(), format!("{loss:.4}"), format!("{kl:.4}")]);
    }
    output::line(&table.to_string())?;
    output::paragraph(&format!(
        "loss recovered {:.3} against zeros, {:.3} against the mean; L0 {:.2}; explained variance \
         {:.3}; {} of {features} features are active on none of {} tokens",
        e.loss_recovered,
        e.loss_recovered_over_mean,
        e.l0,
        e.explained_variance,
        e.dead_features,
        e.tokens
    ))?;
    features_table(report, top)?;
    confirm::print(report.layer, &report.confirmed)?;
    match &report.out {
        Some(out) => output::paragraph(&format!("the SAE is in {}", out.display())),
        None => Ok(()),
    }
}

fn features_table(report: &SaeReport, top: usize) -> Result<()> {
    if report.ranking.is_empty() || top == 0 {
        return Ok(());
    }
    output::line("")?;
    output::paragraph(&format!(
        "the {} features that tell most about good answers (a loss below the median):",
        top.min(report.ranking.len())
    ))?;
    let mut table = output::table(&["feature", "bits", "prompts", "loss active", "else"]);
    let loss = |loss: Option<f64>| loss.map_or("-".to_owned(), |loss| format!("{loss:.3}"));
    for r in report.ranking.iter().take(top) {
        let cells = [format!("feature:{}.{}", report.layer, r.feature), format!("{:.4}", r.bits)];
        let more = [r.prompts.to_string(), loss(r.loss_active), loss(r.loss_silent)];
        table.add_row(cells.into_iter().chain(more));
    }
    output::line(&table.to_string())
}

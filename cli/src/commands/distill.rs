//! `uspx distill`: the teacher labels prompts and a student learns them, here without a colony.

use super::{HELD_OUT, held_out};
use crate::args::DistillArgs;
use crate::draft::Draft;
use crate::error::{CliError, Exit, Result};
use crate::left_out::{self, LeftOut};
use crate::progress::Bar;
use crate::saes::Saes;
use crate::{models, output, student};
use serde::Serialize;
use std::path::Path;
use std::slice::from_ref;
use std::time::{Duration, Instant};
use uspx_distill::{
    DistilRequest, Distilled, Exchanged, Keep, Labels, PeftConfig, distil, make_labels, recipe,
};
use uspx_domain::{
    ADAPTER_CONFIG, ADAPTER_TENSORS, DistilRecipe, Dreams, Mask, Prompt, Skipped, TrainingSummary,
};
use uspx_model::LoadedModel;
use uspx_model::budget::Workload;
use uspx_model::config::ModelConfig;
use uspx_runtime::{Shutdown, memory};

/// How often the training's state is kept, where that is asked for.
const KEEP_EVERY: Duration = Duration::from_secs(120);

/// The JSON form.
#[derive(Serialize)]
struct Trained<'a> {
    out: &'a Path,
    prompts: usize,
    validation_prompts: usize,
    /// Nats per response token on the validation prompts, before and after.
    loss_before: f32,
    loss_after: f32,
    steps: u32,
    /// Of these, what a checkpoint brought along.
    resumed_steps: u32,
    best_epoch: u32,
    /// Tokens of prompts and answers that its other steps learned from.
    trained_tokens: u64,
    /// The same, a second of a step.
    trained_tokens_per_second: f64,
    seconds: f64,
    peak_rss_bytes: Option<u64>,
    /// Where the training was shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange: Option<Exchange>,
    skipped: Vec<LeftOut>,
}

/// What the machines of a shared training told each other.
#[derive(Serialize)]
struct Exchange {
    machines: usize,
    rounds: u32,
    /// Bytes that all of them sent.
    bytes: u64,
    /// Bytes of their gradients, had they sent them after every step.
    per_step_bytes: u64,
}

/// Prompts to learn, and prompts to stop by.
struct Split<T> {
    train: T,
    validation: T,
}

/// `uspx distill`.
pub fn run(args: &DistillArgs, shutdown: &Shutdown) -> Result<()> {
    let (start, recipe) = (Instant::now(), args.recipe.recipe());
    recipe::check(&recipe)?;
    let (draft, prompts) = (Draft::of(&args.out)?, split(args)?);
    let work = workload(args, &recipe)?;
    // Looked at before the long work, and closed again: the teacher gets the memory.
    drop(student::open(&args.student, &args.run, work)?);
    let (labels, skipped) = label(args, &prompts, shutdown)?;
    let mut student = student::open(&args.student, &args.run, work)?.model;
    let bar = Bar::new("training", args.run.json, shutdown);
    let (train, validation) = (from_ref(&labels.train), from_ref(&labels.validation));
    let keep = args.checkpoint.as_deref().map(|file| Keep { file, every: KEEP_EVERY });
    let sharing = args.sharing();
    let request = DistilRequest { keep, sharing, ..DistilRequest::new(train, validation, &recipe) };
    let made = distil(&mut student, &request, &bar)?;
    let recipe = recipe::resolved(&recipe, student.transformer.config().hidden);
    bar.finish();
    let peft = PeftConfig::dense(student.fingerprint, recipe.rank, recipe.alpha);
    write(draft, &made.adapter, &peft)?;
    if let Some(file) = &args.checkpoint {
        // Short trainings have left none.
        let _ = std::fs::remove_file(file);
    }
    let counts = [&labels.train, &labels.validation].map(|labels| labels.prompts.len());
    tell((args, recipe.rank), counts, &made, start.elapsed().as_secs_f64(), &skipped)
}

/// How the student is held while it learns.
fn workload(args: &DistillArgs, recipe: &DistilRecipe) -> Result<Workload> {
    let batch_tokens = recipe.batch_tokens as usize;
    if !args.nf4 {
        return Ok(Workload::Training { batch_tokens });
    }
    models::check_there(&args.student)?;
    let hidden = ModelConfig::open(&args.student)?.hidden;
    let rank = recipe::resolved(recipe, hidden).rank as usize;
    Ok(Workload::TrainingNf4 { batch_tokens, rank })
}

/// The prompts of both files, or of one with a tenth of it drawn to stop by.
fn split(args: &DistillArgs) -> Result<Split<Vec<Prompt>>> {
    let mut train = args.source(&args.prompts).read()?.prompts;
    train.truncate(args.limit.unwrap_or(usize::MAX));
    let validation = match &args.validation {
        Some(file) => args.source(file).read()?.prompts,
        None => {
            let why = "to stop by (--validation FILE names others)";
            held_out(&mut train, HELD_OUT, args.recipe.seed, why)
        }
    };
    if train.is_empty() || validation.is_empty() {
        let message = "at least one prompt to learn and one to stop by are needed";
        return Err(CliError::new(Exit::BadInput, message).help("give more prompts"));
    }
    Ok(Split { train, validation })
}

/// The teacher's labels of both. It is closed again before the student learns.
fn label(
    args: &DistillArgs,
    prompts: &Split<Vec<Prompt>>,
    shutdown: &Shutdown,
) -> Result<(Split<Labels>, Vec<Skipped>)> {
    let with = (Workload::Forward, Saes::read(&args.saes)?);
    let opened = models::opened_with(&args.teacher, &args.run, with)?;
    let (teacher, room) = (opened.model, opened.room);
    let mask = args.mask.as_deref().map(|path| models::mask(path, &teacher)).transpose()?;
    let bounds = args.run.bounds(args.max_new_tokens);
    let label = |what: &str, prompts: &[Prompt]| {
        let bar = Bar::new(what, args.run.json, shutdown);
        let made = make_labels(&teacher, prompts, mask.as_ref(), args.top_k, (bounds, room), &bar)?;
        bar.finish();
        Ok::<_, CliError>(made)
    };
    let (validation, mut skipped) = label("labelling, to stop by", &prompts.validation)?;
    let train = dreamt(args, &teacher, &prompts.train, mask.as_ref(), shutdown)?;
    let (train, more) = label("labelling, to learn", &train)?;
    skipped.extend(more);
    left_out::tell(&skipped, train.prompts.len(), None, args.run.json)?;
    left_out::tell(&skipped, validation.prompts.len(), None, true)?;
    Ok((Split { train, validation }, skipped))
}

/// The prompts, and beside them those that the teacher makes up.
fn dreamt(
    args: &DistillArgs,
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    shutdown: &Shutdown,
) -> Result<Vec<Prompt>> {
    let how = Dreams { rounds: args.dreams, seed: args.recipe.seed };
    if how.is_none() {
        return Ok(prompts.to_vec());
    }
    let bar = Bar::new("dreaming", args.run.json, shutdown);
    let all =
        uspx_distill::dreams(teacher, prompts, mask, (how, args.max_new_tokens as u32), &bar)?;
    bar.finish();
    Ok([prompts, &all].concat())
}

fn write(draft: Draft, adapter: &[u8], peft: &PeftConfig) -> Result<()> {
    let failed = |e: serde_json::Error| CliError::new(Exit::Failed, e);
    let config = serde_json::to_vec_pretty(peft).map_err(failed)?;
    for (name, bytes) in [(ADAPTER_TENSORS, adapter), (ADAPTER_CONFIG, config.as_slice())] {
        let path = draft.path().join(name);
        std::fs::write(&path, bytes).map_err(|e| CliError::file(&path, &e))?;
    }
    draft.keep()
}

fn exchange(args: &DistillArgs, made: &Distilled) -> Option<Exchange> {
    let Exchanged { rounds, bytes, per_step: per_step_bytes } = made.exchanged;
    args.machines.map(|machines| Exchange { machines, rounds, bytes, per_step_bytes })
}

fn tell(
    (args, rank): (&DistillArgs, u32),
    [prompts, validation_prompts]: [usize; 2],
    made: &Distilled,
    seconds: f64,
    skipped: &[Skipped],
) -> Result<()> {
    let TrainingSummary { steps, before, after, best_epoch } = made.summary;
    if args.run.json {
        return output::json(&Trained {
            out: &args.out,
            prompts,
            validation_prompts,
            loss_before: before,
            loss_after: after,
            steps,
            resumed_steps: made.resumed,
            best_epoch,
            trained_tokens: made.pace.tokens,
            trained_tokens_per_second: made.pace.tokens as f64 / made.pace.seconds,
            seconds,
            peak_rss_bytes: memory::peak_rss(),
            exchange: exchange(args, made),
            skipped: left_out::listed(skipped),
        });
    }
    if best_epoch == 0 {
        output::remark_paragraph(
            "no pass made the loss better: the adapter changes nothing. Try more prompts or a lower --learning-rate",
        );
    }
    let (out, epochs) = (args.out.display(), args.recipe.epochs);
    output::paragraph(&format!(
        "loss on {validation_prompts} validation prompts: {before:.4} before, {after:.4} after, nats per token"
    ))?;
    output::paragraph(&format!(
        "{out}: an adapter of rank {rank}, from epoch {best_epoch} of {epochs}, {prompts} prompts, {steps} steps"
    ))?;
    if let Some(Exchange { machines, rounds, bytes, .. }) = exchange(args, made) {
        output::paragraph(&format!(
            "shared by {machines} machines: {bytes} bytes sent in {rounds} rounds"
        ))?;
    }
    output::line(&format!(
        "in 4 bits: uspx export --format gguf --out DIR \\\n  --model {} \\\n  --adapter {out} \\\n  --prompts {}",
        args.student.display(),
        args.prompts.display()
    ))
}

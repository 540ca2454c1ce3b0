//! `uspx distill`: the teacher labels prompts and a student learns them, here without a colony.

mod label;
mod local;
mod on_policy;
mod report;
mod served;

use super::{HELD_OUT, held_out};
use crate::args::DistillArgs;
use crate::draft::Draft;
use crate::error::{CliError, Exit, Result};
use crate::progress::Bar;
use crate::{models, student};
use label::Lessons;
use report::Told;
use std::path::Path;
use std::slice::from_ref;
use std::time::{Duration, Instant};
use uspx_distill::on_policy::Stage;
use uspx_distill::{DistilRequest, Fading, Keep, PeftConfig, distil, recipe};
use uspx_domain::{ADAPTER_CONFIG, ADAPTER_TENSORS, DistilLoss, Mask, Prompt};
use uspx_model::config::ModelConfig;
use uspx_runtime::Shutdown;

/// How often the training's state is kept, where that is asked for.
const KEEP_EVERY: Duration = Duration::from_secs(120);

/// Prompts to learn, and prompts to stop by.
struct Split<T> {
    train: T,
    validation: T,
}

/// `uspx distill`.
pub fn run(args: &DistillArgs, shutdown: &Shutdown) -> Result<()> {
    let (start, recipe) = (Instant::now(), args.recipe());
    recipe::check(&recipe)?;
    check_draws(args)?;
    let (draft, prompts) = (Draft::of(&args.out)?, split(args)?);
    models::check_there(&args.student)?;
    let mask = args.student_mask.as_deref().map(|path| mask(path, &args.student)).transpose()?;
    let work = models::machine(&args.run.machine)?.training(&args.student, &recipe)?;
    student::look(&args.student, &args.run, work)?;
    let Lessons { labels, skipped } = label::label(args, &prompts, shutdown)?;
    let mut student = student::open(&args.student, &args.run, work)?;
    let bar = Bar::new("training", args.run.json, shutdown);
    let (train, validation) = (from_ref(&labels.train), from_ref(&labels.validation));
    let keep = args.checkpoint.as_deref().map(|file| Keep { file, every: KEEP_EVERY });
    let sharing = args.sharing();
    let fading = mask.as_ref().map(|mask| Fading { mask, ramp: args.ramp });
    let request = DistilRequest::new(train, validation, &recipe);
    let request = DistilRequest { keep, sharing, fading, ..request };
    let made = distil(&mut student.model, &request, &bar)?;
    bar.finish();
    let recipe = recipe::resolved(&recipe, student.model.transformer.config().hidden);
    let peft = PeftConfig::dense(student.model.fingerprint, recipe.rank, recipe.alpha);
    let mut stage = Stage::after(&made, (args.on_policy(), &recipe));
    on_policy::rounds(args, (&mut stage, work), (&labels, student), shutdown)?;
    write(draft, stage.best(), &peft)?;
    if let Some(file) = &args.checkpoint {
        // Short trainings have left none.
        let _ = std::fs::remove_file(file);
    }
    let (seconds, rounds) = (start.elapsed().as_secs_f64(), stage.rounds());
    let (rank, labels, skipped) = (recipe.rank, &labels, skipped.as_slice());
    Told { args, rank, labels, made: &made, rounds, seconds, skipped }.tell()
}

/// Draws say how likely tokens are in the mean, and not which are the likeliest.
fn check_draws(args: &DistillArgs) -> Result<()> {
    if args.sampled.is_none() || args.recipe.loss != DistilLoss::GOLD {
        return Ok(());
    }
    let message =
        "--loss gold compares the teacher's likeliest tokens: --sampled does not keep them";
    Err(CliError::new(Exit::Usage, message).help("leave one of the two out"))
}

/// The mask of the student in a folder: what does not fit is told before the teacher works.
fn mask(path: &Path, student: &Path) -> Result<Mask> {
    let shape = ModelConfig::open(student)?.shape();
    models::mask_of(path, uspx_model::fingerprint(student)?, &shape)
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

fn write(draft: Draft, adapter: &[u8], peft: &PeftConfig) -> Result<()> {
    let failed = |e: serde_json::Error| CliError::new(Exit::Failed, e);
    let config = serde_json::to_vec_pretty(peft).map_err(failed)?;
    for (name, bytes) in [(ADAPTER_TENSORS, adapter), (ADAPTER_CONFIG, config.as_slice())] {
        let path = draft.path().join(name);
        std::fs::write(&path, bytes).map_err(|e| CliError::file(&path, &e))?;
    }
    draft.keep()
}

//! Opening what the flags name: devices, models with the prompts to measure, masks.

use crate::args::{MachineArgs, ProbeArgs, RunArgs};
use crate::error::{CliError, Exit, Result};
use crate::mask_file::MaskFile;
use crate::progress::Bar;
use crate::saes::Saes;
use crate::scored::Scored;
use crate::{left_out, output};
use candle_core::Device;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use uspx_domain::{Fingerprint, Mask, ModelShape, Prompt, Skipped};
use uspx_model::batch::Sequence;
use uspx_model::budget::{Beside, Workload};
use uspx_model::cuts::CutTaps;
use uspx_model::generate::fill_references;
use uspx_model::taps::NoTaps;
use uspx_model::{Holding, LoadedModel, Readable};
use uspx_runtime::{Shutdown, text};
use uspx_worker::planning::{Machine, Placed};

/// The device that `--device` names.
pub fn device(name: &str) -> Result<Device> {
    let unusable = |e: candle_core::Error| {
        CliError::new(Exit::NotFound, format!("device {name}: {e}")).help(
            "build with --features cuda or metal on a machine that has one, or use --device cpu",
        )
    };
    match name.split_once(':').unwrap_or((name, "0")) {
        ("cpu", _) => Ok(Device::Cpu),
        (kind @ ("cuda" | "metal"), number) => {
            let number = number.parse().map_err(|_| bad_device(name))?;
            if kind == "cuda" { Device::new_cuda(number) } else { Device::new_metal(number) }
                .map_err(unusable)
        }
        _ => Err(bad_device(name)),
    }
}

fn bad_device(name: &str) -> CliError {
    CliError::new(Exit::Usage, format!("`{name}` is not a device")).help("use cpu, cuda:0 or metal")
}

/// What of this machine the flags let be used.
pub fn machine(args: &MachineArgs) -> Result<Machine> {
    Ok(Machine {
        device: device(args.device())?,
        dtype: args.dtype.map(Into::into),
        memory: args.memory.map(|bytes| bytes.as_u64()),
        stream: args.stream,
        batch_tokens: args.batch_tokens,
    })
}

/// A model, and how many of its tokens fit in memory together.
pub struct Opened {
    /// The model.
    pub model: LoadedModel,
    /// Tokens of a batch.
    pub batch_tokens: usize,
    /// Tokens that there is memory for at once.
    pub room: usize,
    /// Whether there is memory for an export's finish, where one was asked for.
    pub finishes: bool,
}

/// A model folder (float, MXFP4 or GPTQ) or a GGUF file, in memory or streamed as the budget asks.
pub fn opened(path: &Path, run: &RunArgs, work: Workload) -> Result<Opened> {
    opened_beside(path, run, (work, Beside::NOTHING))
}

/// The same with sparse autoencoders, whose features are units of its layers.
pub fn opened_with(path: &Path, run: &RunArgs, (work, saes): (Workload, Saes)) -> Result<Opened> {
    let mut opened = opened_beside(path, run, (work, saes.beside()))?;
    saes.attach(&mut opened.model)?;
    Ok(opened)
}

/// The same with room for something else beside it.
pub fn opened_beside(
    path: &Path,
    run: &RunArgs,
    (work, beside): (Workload, Beside),
) -> Result<Opened> {
    check_there(path)?;
    let Placed { placement, batch_tokens, room, plan } =
        machine(&run.machine)?.place(path, work, beside)?;
    let unusual = |holding| matches!(holding, Holding::Streamed | Holding::Nf4);
    let finishes = plan.as_ref().is_some_and(|plan| plan.finishes);
    let told = |holding| run.machine.memory.is_some() || unusual(holding);
    if let Some(plan) = plan.filter(|plan| told(plan.holding)) {
        output::note(&plan.to_string());
    }
    let mut model = uspx_worker::open_any(path, placement)?;
    model.chat.set_opened_reasoning(run.reasoning.into());
    Ok(Opened { model, batch_tokens, room, finishes })
}

/// Refuses a path with no model.
pub fn check_there(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    Err(CliError::new(Exit::NotFound, format!("there is no model at {}", path.display())))
}

/// A model to ask.
pub fn model(path: &Path, run: &RunArgs) -> Result<LoadedModel> {
    Ok(opened(path, run, Workload::Forward)?.model)
}

/// Reads a file of token sequences instead, one a line; `model` must know their tokens. Those that
/// are too long for it are left out, named by their line.
pub fn sequences(args: &ProbeArgs, model: &LoadedModel) -> Result<(Vec<Sequence>, Vec<Skipped>)> {
    #[derive(serde::Deserialize)]
    struct Line {
        ids: Vec<u32>,
        response_start: usize,
    }
    let path = &args.prompts;
    let text = text::read(path).map_err(|e| CliError::file(path, &e))?;
    let vocab = model.transformer.config().vocab;
    let each = |(at, line): (usize, &str)| {
        let bad = |why: String| {
            CliError::new(Exit::BadInput, format!("{}: line {}: {why}", path.display(), at + 1))
        };
        let Line { ids, response_start } =
            serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
        if response_start > ids.len() || ids.iter().any(|id| *id as usize >= vocab) {
            return Err(bad(format!(
                "a token above {vocab}, or an answer that begins after the end"
            )));
        }
        let sequence = Sequence { ids, response_start };
        let fits = model.check_context(&sequence);
        Ok(fits.map(|()| sequence).map_err(|reason| Skipped { id: (at + 1).to_string(), reason }))
    };
    let (mut sequences, mut skipped) = (Vec::new(), Vec::new());
    for line in text.lines().enumerate().take(args.limit.unwrap_or(usize::MAX)).map(each) {
        match line? {
            Ok(sequence) => sequences.push(sequence),
            Err(too_long) => skipped.push(too_long),
        }
    }
    left_out::tell(&skipped, sequences.len(), None, args.run.json)?;
    Ok((sequences, skipped))
}

/// A model and the prompts to measure it on, each with an answer.
pub struct Subject {
    /// The model.
    pub model: LoadedModel,
    /// The prompts that it can run; those without a reference have the model's own greedy answer.
    pub prompts: Readable,
    /// On what these are scored.
    pub scored: Scored,
    /// Tokens of a batch.
    pub batch_tokens: usize,
}

/// The same of a file of token sequences, which are named by their number.
pub fn tokenised(args: &ProbeArgs, with: (Workload, Saes)) -> Result<Subject> {
    let Opened { model, batch_tokens, .. } = opened_with(&args.model, &args.run, with)?;
    let (sequences, skipped) = sequences(args, &model)?;
    let named = |number: usize| Prompt { id: number.to_string(), ..Prompt::default() };
    let prompts: Vec<Prompt> = (1..=sequences.len()).map(named).collect();
    let scored = Scored::of(&prompts, &HashSet::new());
    let prompts = Readable { prompts, sequences, skipped, ..Readable::default() };
    Ok(Subject { model, prompts, scored, batch_tokens })
}

/// Opens what a probe needs.
pub fn subject(args: &ProbeArgs, with: (Workload, Saes), shutdown: &Shutdown) -> Result<Subject> {
    let mut all = args.source().read()?.prompts;
    all.truncate(args.limit.unwrap_or(usize::MAX));
    let unanswered = all.iter().filter(|p| p.reference.is_none());
    let open: HashSet<String> = unanswered.map(|p| p.id.clone()).collect();
    if !args.run.json {
        Scored::of(&all, &open).tell();
    }
    let Opened { model, batch_tokens, room, .. } = opened_with(&args.model, &args.run, with)?;
    let prompts = answered((&model, room), all, args, shutdown)?;
    let scored = Scored::of(&prompts.prompts, &open);
    Ok(Subject { model, prompts, scored, batch_tokens })
}

/// The prompts that a model can run, those without a reference with its own greedy answer. What is
/// left out is told.
pub fn answered(
    (model, room): (&LoadedModel, usize),
    mut all: Vec<Prompt>,
    args: &ProbeArgs,
    shutdown: &Shutdown,
) -> Result<Readable> {
    let places: HashMap<String, usize> = all.iter().map(|p| p.id.clone()).zip(0..).collect();
    let unaskable = answer_the_unanswered((model, room), &mut all, args, shutdown)?;
    let mut prompts = model.readable(&all)?;
    prompts.skipped.extend(unaskable.skipped);
    prompts.skipped.sort_by_key(|s| places.get(&s.id));
    prompts.cause = unaskable.cause.or(prompts.cause);
    left_out::tell(&prompts.skipped, prompts.prompts.len(), prompts.cause.as_ref(), args.run.json)?;
    Ok(prompts)
}

/// Gives prompts without a reference the model's own answer. Those that it cannot even be asked are
/// taken out and named.
fn answer_the_unanswered(
    (model, room): (&LoadedModel, usize),
    prompts: &mut Vec<Prompt>,
    args: &ProbeArgs,
    shutdown: &Shutdown,
) -> Result<Readable> {
    let open: Vec<Prompt> = prompts.iter().filter(|p| p.reference.is_none()).cloned().collect();
    if open.is_empty() {
        return Ok(Readable::default());
    }
    let mut asked = model.askable(&open)?;
    leave_out(prompts, &asked.skipped);
    let bar = Bar::new("answering", args.run.json, shutdown);
    let bounds = args.run.bounds(args.max_new_tokens);
    let unfinished = fill_references(model, prompts, bounds, room, &mut NoTaps, &bar)?;
    bar.finish();
    leave_out(prompts, &unfinished);
    asked.skipped.extend(unfinished);
    Ok(asked)
}

fn leave_out(prompts: &mut Vec<Prompt>, skipped: &[Skipped]) {
    let skipped: HashSet<&str> = skipped.iter().map(|s| s.id.as_str()).collect();
    prompts.retain(|p| !skipped.contains(p.id.as_str()));
}

/// Reads a mask and checks that it is of this model.
pub fn mask(path: &Path, model: &LoadedModel) -> Result<Mask> {
    Ok(mask_and_cut(path, model)?.0)
}

/// The cut that a mask of this model is.
pub fn cut(path: &Path, model: &LoadedModel) -> Result<CutTaps> {
    Ok(mask_and_cut(path, model)?.1)
}

fn mask_and_cut(path: &Path, model: &LoadedModel) -> Result<(Mask, CutTaps)> {
    let file = file_of(path, model.fingerprint)?;
    file.check_saes(path, model)?;
    let cut = model.cut_of_mask(&file.mask);
    let refuse = |e| CliError::new(Exit::BadInput, format!("{}: {e}", path.display()));
    Ok((file.mask, cut.map_err(refuse)?))
}

/// The mask of a model that is not loaded.
pub fn mask_of(path: &Path, model: Fingerprint, shape: &ModelShape) -> Result<Mask> {
    let mask = file_of(path, model)?.mask;
    mask.check(shape)
        .map_err(|e| CliError::new(Exit::BadInput, format!("{}: {e}", path.display())))?;
    Ok(mask)
}

/// The file of a mask of this model.
fn file_of(path: &Path, model: Fingerprint) -> Result<MaskFile> {
    let file = MaskFile::read(path)?;
    if file.mask.model == model {
        return Ok(file);
    }
    let message = format!(
        "{}: the mask was made for model {}, this is {model}",
        path.display(),
        file.mask.model
    );
    Err(CliError::new(Exit::Refused, message).help("build a mask for this model: uspx mask build"))
}

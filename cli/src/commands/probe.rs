//! `uspx probe …`: what is measured about single units, on this machine.

mod effects;
mod ensemble;
mod report;
mod resampled;
mod sae;
mod trace;

use crate::args::{ExpertModeArg, PatchArgs, ProbeCommand};
use crate::error::{CliError, Exit, Result};
use crate::grid::{Grid, per_token};
use crate::left_out::{self, LeftOut};
use crate::models::{self, Subject};
use crate::output;
use crate::progress::Bar;
use crate::rows::Method;
use crate::saes::{self, Saes};
use crate::scored::Scored;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;
use uspx_domain::{Baseline, Deposit, Estimator, ModelShape, Needs, Statistic, UnitKind};
use uspx_model::PerPrompt;
use uspx_model::budget::Workload;
use uspx_model::taps::{NoTaps, Taps};
use uspx_probe::evaluate::{Against, evaluate};
use uspx_probe::{ProbeRequest, measure};
use uspx_runtime::Shutdown;

/// Runs a probe.
pub fn run(command: &ProbeCommand, shutdown: &Shutdown) -> Result<()> {
    match command {
        ProbeCommand::Trace(args) => trace::run(args, shutdown),
        ProbeCommand::Patch(args) => patch(args, shutdown),
        ProbeCommand::Ablate(args) => super::eval::ablate(args, shutdown),
        ProbeCommand::Sae(args) => sae::run(args, shutdown),
        ProbeCommand::Report(args) => report::run(args, shutdown),
    }
}

#[derive(Serialize)]
struct PatchReport {
    method: &'static str,
    prompts: usize,
    baseline: Baseline,
    /// Of exact effects of experts.
    #[serde(skip_serializing_if = "Option::is_none")]
    expert_mode: Option<ExpertModeArg>,
    /// From which prompt each one was resampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    resampled_from: Option<BTreeMap<String, String>>,
    /// Prompts that were not measured: no other one has as many tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unpaired: Vec<String>,
    scored: Scored,
    clean_loss: f64,
    effects: BTreeMap<String, Grid>,
    stderr: BTreeMap<String, Grid>,
    /// The same, made positive per token before it is summed: what masks are ranked by. Of the
    /// methods that have it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    magnitudes: BTreeMap<String, Grid>,
    /// Forward-equivalents: layers run ÷ layers of the model, per prompt.
    forwards: f64,
    /// Layers differentiated ÷ layers of the model, per prompt.
    backwards: f64,
    seconds: f64,
    /// As for a trace.
    seam_prompts: u32,
    skipped: Vec<LeftOut>,
}

/// What is to be measured, checked before the model is opened as far as that goes.
fn effect_of(args: &PatchArgs, estimator: Estimator) -> Result<(Statistic, Baseline)> {
    let row = estimator.row();
    let usage = |what: String, help: &str| Err(CliError::new(Exit::Usage, what).help(help));
    let baseline = args.baseline.unwrap_or(estimator.usual_baseline());
    if !row.baselines.contains(&baseline) {
        let name = baseline.name();
        let what = format!("{estimator} effects do not have the baseline {name}");
        return usage(what, "leave out --baseline, or use another --method");
    }
    if args.expert_mode.is_some() && !row.is_exact {
        return usage(
            format!("{estimator} does not take experts out"),
            "leave out --expert-mode, or use --method exact",
        );
    }
    if args.steps.is_some() && row.steps.is_none() {
        return usage(
            format!("{estimator} takes no gradients along a path"),
            "leave out --steps, or use --method eap-ig",
        );
    }
    if let Some(kind) = args.units.iter().find(|kind| !row.kinds.contains(kind)) {
        return usage(format!("{estimator} does not measure {kind}s"), "choose other --units");
    }
    let Some(statistic) = row.effect else {
        return usage(format!("{estimator} measures no effects"), "use another --method");
    };
    Ok((statistic, baseline))
}

fn patch(args: &PatchArgs, shutdown: &Shutdown) -> Result<()> {
    let Method::Effects(estimator) = args.method else { return ensemble::run(args, shutdown) };
    let (statistic, baseline) = effect_of(args, estimator)?;
    let work = match estimator.row().needs {
        Needs::Forward => Workload::Forward,
        Needs::Gradients => Workload::Backward,
    };
    let with = (work, Saes::read(&args.saes)?);
    let Subject { model, mut prompts, scored, batch_tokens } = match args.tokenised {
        true => models::tokenised(&args.common, with)?,
        false => models::subject(&args.common, with, shutdown)?,
    };
    let pairs = (baseline == Baseline::Resample)
        .then(|| resampled::pairs(&mut prompts, args.seed, args.common.run.json))
        .transpose()?;
    let shape = model.shape();
    let layers = layers(args.layers.as_deref(), shape.depth())?;
    let kinds = kinds_here(args, &shape, &estimator.kinds_of(&shape))?;
    let within = args.mask.as_deref().map(|path| models::cut(path, &model)).transpose()?;
    let request = ProbeRequest {
        kinds: &kinds,
        layers,
        baseline,
        within: within.as_ref(),
        expert_mode: args.expert_mode.unwrap_or(ExpertModeArg::Ban).into(),
        seed: args.seed,
        steps: args.steps.or(estimator.row().steps).unwrap_or(1),
        ..ProbeRequest::all(estimator, &model, &prompts, batch_tokens)
    };
    let bar = Bar::new("patching", args.common.run.json, shutdown);
    let (start, before) = (Instant::now(), model.transformer.passes());
    let deposit = measure(estimator, &request, &bar)?;
    let seconds = start.elapsed().as_secs_f64();
    let passes = model.transformer.passes().since(before);
    let PerPrompt { forwards, backwards } =
        passes.per_prompt(model.transformer.layers(), prompts.sequences.len());
    bar.finish();
    let Tables { effects, stderr, magnitudes } =
        Tables::of(&deposit, &request, (estimator, statistic));
    let of_experts = estimator.row().is_exact && kinds.contains(&UnitKind::Expert);
    let (resampled_from, unpaired) = pairs.map_or((None, Vec::new()), |p| (Some(p.from), p.alone));
    let report = PatchReport {
        method: estimator.name(),
        prompts: prompts.sequences.len(),
        baseline,
        expert_mode: of_experts.then(|| args.expert_mode.unwrap_or(ExpertModeArg::Ban)),
        resampled_from,
        unpaired,
        scored,
        clean_loss: clean_loss(&request)?,
        effects,
        stderr,
        magnitudes,
        forwards,
        backwards,
        seconds,
        seam_prompts: prompts.seams,
        skipped: left_out::listed(&prompts.skipped),
    };
    if args.common.run.json { output::json(&report) } else { effects::print(&report, args.all) }
}

/// Of what is asked for, the kinds that the model has; `measured` are those that could be.
fn kinds_here(
    args: &PatchArgs,
    shape: &ModelShape,
    measured: &[UnitKind],
) -> Result<Vec<UnitKind>> {
    let has_any = |kind: &UnitKind| shape.count(*kind) > 0;
    // Features are asked for by name, and there only where an SAE was named too.
    if args.units.contains(&UnitKind::Feature) && !has_any(&UnitKind::Feature) {
        return Err(saes::no_units(UnitKind::Feature));
    }
    let kinds: Vec<UnitKind> = args.kinds().into_iter().filter(has_any).collect();
    if !kinds.is_empty() {
        return Ok(kinds);
    }
    let measured: Vec<&str> = measured.iter().map(|kind| kind.name()).collect();
    let help = match measured.as_slice() {
        [] => "use another --method: this one measures nothing of this model".to_owned(),
        some => format!("try --units {}", some.join(",")),
    };
    Err(CliError::new(Exit::BadInput, "the model has none of these units").help(help))
}

/// Tables of effects, by kind of unit.
struct Tables {
    effects: BTreeMap<String, Grid>,
    stderr: BTreeMap<String, Grid>,
    magnitudes: BTreeMap<String, Grid>,
}

impl Tables {
    fn of(
        deposit: &Deposit,
        request: &ProbeRequest<'_>,
        (estimator, statistic): (Estimator, Statistic),
    ) -> Self {
        let (shape, layers) = (request.model.shape(), &request.layers);
        let table = |kind, statistic| per_token(deposit, &shape, kind, statistic, layers);
        let mut tables =
            Self { effects: BTreeMap::new(), stderr: BTreeMap::new(), magnitudes: BTreeMap::new() };
        for kind in request.kinds {
            let (effects, errors) = table(*kind, statistic);
            tables.effects.insert(kind.to_string(), effects);
            tables.stderr.insert(kind.to_string(), errors);
            if let Some(magnitude) = estimator.row().magnitude() {
                tables.magnitudes.insert(kind.to_string(), table(*kind, magnitude).0);
            }
        }
        tables
    }
}

/// The loss without a patch, in nats per response token.
fn clean_loss(request: &ProbeRequest<'_>) -> Result<f64> {
    let (none, progress) = (Against::Nothing, uspx_model::NoProgress);
    let mut taps: Box<dyn Taps> = match request.within {
        Some(cut) => Box::new(cut.clone()),
        None => Box::new(NoTaps),
    };
    let (model, tokens) = (request.model, request.batch_tokens);
    let clean = evaluate(model, request.prompts, tokens, &mut *taps, &none, &progress)?.losses;
    let all: f64 = clean.prompts.iter().map(|p| f64::from(p.tokens)).sum();
    Ok(clean.nats.iter().copied().map(f64::from).sum::<f64>() / all)
}

fn layers(text: Option<&str>, all: u32) -> Result<Range<u32>> {
    let Some(text) = text else { return Ok(0..all) };
    let parsed = text
        .split_once("..")
        .and_then(|(a, b)| Some(a.parse::<u32>().ok()?..b.parse::<u32>().ok()?));
    match parsed {
        Some(range) if range.start < range.end && range.end <= all => Ok(range),
        _ => Err(CliError::new(Exit::Usage, format!("`{text}` names no layers of this model"))
            .help(format!("write A..B with 0 <= A < B <= {all}"))),
    }
}

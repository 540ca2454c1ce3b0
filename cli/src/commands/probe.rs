//! `uspx probe trace|patch`: what is measured about single units, on this machine.

use crate::args::{BaselineArg, Method, PatchArgs, ProbeCommand, TraceArgs};
use crate::error::{CliError, Exit, Result};
use crate::left_out::{self, LeftOut};
use crate::models::{self, Opened, Subject};
use crate::output;
use crate::progress::Bar;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;
use uspx_domain::{Baseline, Column, Deposit, Fingerprint, ModelShape, Statistic, Unit, UnitKind};
use uspx_model::budget::Work;
use uspx_model::taps::NoTaps;
use uspx_model::{PerPrompt, Readable};
use uspx_probe::evaluate::{Against, evaluate};
use uspx_runtime::{Shutdown, memory};

/// Runs a probe.
pub fn run(command: &ProbeCommand, shutdown: &Shutdown) -> Result<()> {
    match command {
        ProbeCommand::Trace(args) => trace(args, shutdown),
        ProbeCommand::Patch(args) => patch(args, shutdown),
        ProbeCommand::Ablate(args) => super::eval::ablate(args, shutdown),
    }
}

type Grid = Vec<Vec<f64>>;

/// Sums of a statistic over the prompts, `[layer][unit]`.
pub fn sums(columns: &[Column], shape: &ModelShape, kind: UnitKind, statistic: Statistic) -> Grid {
    let mut grid = vec![vec![0.0; shape.per_layer(kind) as usize]; shape.layers as usize];
    for column in columns.iter().filter(|c| c.unit.kind == kind && c.statistic == statistic) {
        let place = grid.get_mut(column.unit.layer as usize).and_then(|l| l.get_mut(column.unit.index as usize));
        if let Some(place) = place {
            *place += column.values.iter().copied().map(f64::from).sum::<f64>();
        }
    }
    grid
}

/// Each value of `a` divided by its twin in `b`; 0 where that is 0.
pub fn divided(a: &Grid, b: &Grid) -> Grid {
    let quotient = |(a, b): (&f64, &f64)| if *b == 0.0 { 0.0 } else { a / b };
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(quotient).collect()).collect()
}

#[derive(Serialize)]
struct TraceReport {
    model: ModelReport,
    prompts: usize,
    tokens: u64,
    response_tokens: u64,
    tokens_per_second: f64,
    /// Seconds of each pass over the prompts: on a GPU, the first loads its kernels.
    pass_seconds: Vec<f64>,
    streamed: bool,
    batch_tokens: usize,
    peak_rss_bytes: Option<u64>,
    experts: ExpertReport,
    heads: HeadReport,
    /// Prompts whose whole text has other tokens than its use: those in use are measured.
    seam_prompts: u32,
    skipped: Vec<LeftOut>,
}

#[derive(Serialize)]
struct ModelReport {
    fingerprint: Fingerprint,
    architecture: String,
    layers: u32,
    experts: u32,
    heads: u32,
}

#[derive(Serialize)]
struct ExpertReport {
    count: Grid,
    gate_mass: Grid,
    saliency: Grid,
    saliency_reap: Grid,
    saliency_easy_ep: Grid,
}

#[derive(Serialize)]
struct HeadReport {
    norm: Grid,
}

/// The model, its batch size, what to trace, and what cannot be.
fn traced(args: &TraceArgs, shutdown: &Shutdown) -> Result<(Opened, Readable)> {
    if args.tokenised {
        let opened = models::opened(&args.common.model, &args.common.run, Work::Forward)?;
        let (sequences, skipped) = models::sequences(&args.common, &opened.model)?;
        return Ok((opened, Readable { sequences, skipped, ..Readable::default() }));
    }
    let Subject { model, prompts, batch_tokens } = models::subject(&args.common, Work::Forward, shutdown)?;
    Ok((Opened { model, batch_tokens }, prompts))
}

fn trace(args: &TraceArgs, shutdown: &Shutdown) -> Result<()> {
    let (Opened { model, batch_tokens }, prompts) = traced(args, shutdown)?;
    let sequences = &prompts.sequences;
    let tokens: usize = sequences.iter().map(|s| s.ids.len()).sum();
    let bar = Bar::new("tracing", args.common.run.json, shutdown);
    let mut pass_seconds = Vec::new();
    let mut columns = Vec::new();
    for _ in 0..args.repeat {
        let start = Instant::now();
        columns = uspx_probe::trace::columns(&model, sequences, batch_tokens, &bar)?;
        pass_seconds.push(start.elapsed().as_secs_f64());
    }
    let seconds: f64 = pass_seconds.iter().sum();
    bar.finish();
    let shape = model.shape();
    let of = |statistic| sums(&columns, &shape, UnitKind::Expert, statistic);
    let (count, saliency) = (of(Statistic::Count), of(Statistic::Saliency));
    let report = TraceReport {
        model: ModelReport {
            fingerprint: model.fingerprint,
            architecture: model.transformer.config().architecture.clone(),
            layers: shape.layers,
            experts: shape.experts,
            heads: shape.heads,
        },
        prompts: sequences.len(),
        tokens: tokens as u64,
        response_tokens: sequences.iter().map(|s| s.response_len() as u64).sum(),
        tokens_per_second: (tokens * args.repeat) as f64 / seconds,
        pass_seconds,
        streamed: model.transformer.is_streamed(),
        batch_tokens,
        peak_rss_bytes: memory::peak_rss(),
        experts: ExpertReport {
            saliency_reap: divided(&saliency, &count),
            count,
            gate_mass: of(Statistic::GateMass),
            saliency,
            saliency_easy_ep: of(Statistic::EasyEp),
        },
        heads: HeadReport { norm: sums(&columns, &shape, UnitKind::Head, Statistic::HeadNorm) },
        seam_prompts: prompts.seams,
        skipped: left_out::listed(&prompts.skipped),
    };
    if args.common.run.json {
        return output::json(&report);
    }
    let mut table = output::table(&["layer", "experts by how often they were routed to (share of response tokens)"]);
    for (layer, counts) in report.experts.count.iter().enumerate() {
        table.add_row([layer.to_string(), ranked(counts, report.response_tokens as f64)]);
    }
    output::line(&table.to_string())?;
    output::line(&format!("{:.0} tokens per second", report.tokens_per_second))
}

fn ranked(values: &[f64], whole: f64) -> String {
    let mut order: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let each = |(unit, value): &(usize, f64)| format!("{unit}:{:.2}", value / whole);
    order.iter().take(12).map(each).collect::<Vec<_>>().join("  ")
}

#[derive(Serialize)]
struct PatchReport {
    method: &'static str,
    baseline: Option<Baseline>,
    clean_loss: f64,
    effects: BTreeMap<String, Grid>,
    stderr: BTreeMap<String, Grid>,
    /// Forward-equivalents: layers run ÷ layers of the model, per prompt.
    forwards: f64,
    /// Layers differentiated ÷ layers of the model, per prompt.
    backwards: f64,
    seconds: f64,
    /// As for a trace.
    seam_prompts: u32,
    skipped: Vec<LeftOut>,
}

fn patch(args: &PatchArgs, shutdown: &Shutdown) -> Result<()> {
    let work = if args.method == Method::Atp { Work::Backward } else { Work::Forward };
    let Subject { model, prompts, batch_tokens: tokens } = models::subject(&args.common, work, shutdown)?;
    let shape = model.shape();
    let layers = layers(args.layers.as_deref(), shape.layers)?;
    let kinds: Vec<UnitKind> = args.units.iter().map(|k| (*k).into()).filter(|k| shape.per_layer(*k) > 0).collect();
    if kinds.is_empty() {
        return Err(CliError::new(Exit::BadInput, "the model has none of these units").help("try --units head"));
    }
    let units: Vec<Unit> = kinds.iter().flat_map(|k| shape.units(*k)).filter(|u| layers.contains(&u.layer)).collect();
    let bar = Bar::new("patching", args.common.run.json, shutdown);
    let (start, before) = (Instant::now(), model.transformer.passes());
    let (deposit, statistic, baseline) = match args.method {
        Method::Exact => {
            if args.baseline == Some(BaselineArg::Mean) {
                return Err(CliError::new(Exit::Usage, "exact effects have the baseline zero (experts: a ban)")
                    .help("leave out --baseline, or use --method atp"));
            }
            let deposit = uspx_probe::exact_effects(&model, &prompts, &units, tokens, &bar)?;
            (deposit, Statistic::Exact, None)
        }
        Method::Atp => {
            let baseline = if args.baseline == Some(BaselineArg::Zero) { Baseline::Zero } else { Baseline::Mean };
            let deposit = uspx_probe::patch::attribution(&model, &prompts, &kinds, baseline, tokens, &bar)?;
            (deposit, Statistic::Atp, Some(baseline))
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let passes = model.transformer.passes().since(before);
    let PerPrompt { forwards, backwards } = passes.per_prompt(model.transformer.layers(), prompts.sequences.len());
    bar.finish();
    let clean = evaluate(&model, &prompts, tokens, &mut NoTaps, &Against::Nothing, &uspx_model::NoPulse)?.losses;
    let all_tokens: f64 = clean.prompts.iter().map(|p| f64::from(p.tokens)).sum();
    let (mut effects, mut errors) = (BTreeMap::new(), BTreeMap::new());
    for kind in kinds {
        let (effect, error) = per_token(&deposit, &shape, kind, statistic, &layers);
        effects.insert(kind.to_string(), effect);
        errors.insert(kind.to_string(), error);
    }
    let report = PatchReport {
        method: if args.method == Method::Exact { "exact" } else { "atp" },
        baseline,
        clean_loss: clean.nats.iter().copied().map(f64::from).sum::<f64>() / all_tokens,
        effects,
        stderr: errors,
        forwards,
        backwards,
        seconds,
        seam_prompts: prompts.seams,
        skipped: left_out::listed(&prompts.skipped),
    };
    if args.common.run.json { output::json(&report) } else { print_effects(&report) }
}

/// Effects per response token and their standard errors over prompts, `[layer][unit]`; layers not asked for are empty.
fn per_token(
    deposit: &Deposit,
    shape: &ModelShape,
    kind: UnitKind,
    statistic: Statistic,
    layers: &Range<u32>,
) -> (Grid, Grid) {
    let empty = |layer| if layers.contains(&layer) { vec![0.0; shape.per_layer(kind) as usize] } else { Vec::new() };
    let mut effects: Grid = (0..shape.layers).map(empty).collect();
    let mut errors = effects.clone();
    let tokens: Vec<f64> = deposit.prompts.iter().map(|p| f64::from(p.tokens)).collect();
    let all: f64 = tokens.iter().sum();
    let n = tokens.len() as f64;
    for column in deposit.columns.iter().filter(|c| c.unit.kind == kind && c.statistic == statistic) {
        let mean = column.values.iter().copied().map(f64::from).sum::<f64>() / all;
        let squares: f64 = column.values.iter().zip(&tokens).map(|(v, t)| (f64::from(*v) - mean * t).powi(2)).sum();
        let (layer, index) = (column.unit.layer as usize, column.unit.index as usize);
        if let Some(place) = effects.get_mut(layer).and_then(|l| l.get_mut(index)) {
            *place = mean;
        }
        if let Some(place) = errors.get_mut(layer).and_then(|l| l.get_mut(index)) {
            *place = if n < 2.0 { f64::NAN } else { (squares * n / (n - 1.0)).sqrt() / all };
        }
    }
    (effects, errors)
}

fn layers(text: Option<&str>, all: u32) -> Result<Range<u32>> {
    let Some(text) = text else { return Ok(0..all) };
    let parsed = text.split_once("..").and_then(|(a, b)| Some(a.parse::<u32>().ok()?..b.parse::<u32>().ok()?));
    match parsed {
        Some(range) if range.start < range.end && range.end <= all => Ok(range),
        _ => Err(CliError::new(Exit::Usage, format!("`{text}` names no layers of this model"))
            .help(format!("write A..B with 0 <= A < B <= {all}"))),
    }
}

fn print_effects(report: &PatchReport) -> Result<()> {
    let mut rows = Vec::new();
    for (kind, grid) in &report.effects {
        let errors = report.stderr.get(kind);
        for (layer, effects) in grid.iter().enumerate() {
            for (index, effect) in effects.iter().enumerate() {
                let error = errors.and_then(|e| e.get(layer)?.get(index)).copied().unwrap_or(f64::NAN);
                rows.push((*effect, error, format!("{kind}:{layer}.{index}")));
            }
        }
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut table = output::table(&["unit", "effect (nats per response token)", "standard error"]);
    for (effect, error, unit) in rows {
        table.add_row([unit, format!("{effect:.4}"), format!("{error:.4}")]);
    }
    output::line(&table.to_string())?;
    output::line(&format!(
        "clean loss {:.4}, {:.1} s, {:.2} forward and {:.2} backward passes a prompt",
        report.clean_loss, report.seconds, report.forwards, report.backwards
    ))
}

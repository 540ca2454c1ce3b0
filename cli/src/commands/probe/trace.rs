//! `uspx probe trace`: what one forward pass shows.

use crate::args::TraceArgs;
use crate::error::{CliError, Exit, Result};
use crate::grid::{Grid, PerLayer, divided, sums};
use crate::left_out::{self, LeftOut};
use crate::models::{self, Subject};
use crate::output;
use crate::progress::Bar;
use crate::saes::Saes;
use crate::scored::Scored;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use uspx_domain::{Deposit, Estimator, Fingerprint, ModelShape, Statistic, UnitKind};
use uspx_model::budget::Workload;
use uspx_model::{LoadedModel, Readable};
use uspx_probe::ProbeRequest;
use uspx_probe::trace::{CoActivation, More, Traced, trace};
use uspx_runtime::{Shutdown, memory};

/// The JSON form.
#[derive(Serialize)]
struct TraceReport {
    model: ModelReport,
    prompts: usize,
    /// None where token sequences were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    scored: Option<Scored>,
    tokens: u64,
    response_tokens: u64,
    tokens_per_second: f64,
    /// Seconds of each pass over the prompts: on a GPU, the first loads its kernels.
    pass_seconds: Vec<f64>,
    streamed: bool,
    batch_tokens: usize,
    peak_rss_bytes: Option<u64>,
    #[serde(flatten)]
    found: Found,
    /// Of the prompts of each tag.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, TagReport>,
    /// Prompts whose whole text has other tokens than its use: those in use are measured.
    seam_prompts: u32,
    skipped: Vec<LeftOut>,
}

#[derive(Serialize)]
struct ModelReport {
    fingerprint: Fingerprint,
    architecture: String,
    layers: u32,
    experts: PerLayer,
    heads: PerLayer,
}

/// What is told of a tag's prompts.
#[derive(Serialize)]
struct TagReport {
    prompts: usize,
    response_tokens: u64,
    #[serde(flatten)]
    found: Found,
}

/// What is told of some prompts.
#[derive(Serialize)]
struct Found {
    /// Over response tokens.
    #[serde(flatten)]
    units: Units,
    /// Over the prompts' own tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<Units>,
    /// Over response tokens: `[layer][expert][expert]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    co_activation: Option<CoActivation>,
}

/// Sums over tokens, `[layer][unit]`, of the kinds that were asked for.
#[derive(Serialize)]
struct Units {
    #[serde(skip_serializing_if = "Option::is_none")]
    experts: Option<ExpertReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heads: Option<HeadReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<ChannelReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expert_channels: Option<ChannelReport>,
}

#[derive(Serialize)]
struct ExpertReport {
    count: Grid,
    gate_mass: Grid,
    saliency: Grid,
    saliency_reap: Grid,
    saliency_easy_ep: Grid,
    margin: Grid,
}

#[derive(Serialize)]
struct HeadReport {
    norm: Grid,
    energy: Grid,
}

#[derive(Serialize)]
struct ChannelReport {
    magnitude: Grid,
    energy: Grid,
}

impl Units {
    fn of(deposit: &Deposit, shape: &ModelShape, kinds: &[UnitKind]) -> Self {
        let asked = |kind| kinds.contains(&kind).then_some(kind);
        let sums = |kind, statistic| sums(deposit, shape, kind, statistic);
        let channels = |kind| ChannelReport {
            magnitude: sums(kind, Statistic::CHANNEL_SIZE),
            energy: sums(kind, Statistic::CHANNEL_ENERGY),
        };
        let heads = |kind| HeadReport {
            norm: sums(kind, Statistic::HEAD_NORM),
            energy: sums(kind, Statistic::HEAD_ENERGY),
        };
        let experts = |kind| {
            let (count, saliency) = (sums(kind, Statistic::COUNT), sums(kind, Statistic::SALIENCY));
            ExpertReport {
                saliency_reap: divided(&saliency, &count),
                count,
                gate_mass: sums(kind, Statistic::GATE_MASS),
                saliency,
                saliency_easy_ep: sums(kind, Statistic::EASY_EP),
                margin: sums(kind, Statistic::MARGIN),
            }
        };
        Self {
            experts: asked(UnitKind::Expert).map(experts),
            heads: asked(UnitKind::Head).map(heads),
            channels: asked(UnitKind::Channel).map(channels),
            expert_channels: asked(UnitKind::ExpertChannel).map(channels),
        }
    }
}

/// A model, and what to tell of it.
struct Tracing<'a> {
    args: &'a TraceArgs,
    model: LoadedModel,
    batch_tokens: usize,
    shutdown: &'a Shutdown,
}

impl Tracing<'_> {
    fn of(&self, prompts: &Readable, stage: &str) -> Result<Found> {
        let Self { args, model, batch_tokens, shutdown } = self;
        let more = More { prompt_tokens: args.prompt_tokens, co_activation: args.co_activation };
        let bar = Bar::new(stage, args.common.run.json, shutdown);
        let all = ProbeRequest::all(Estimator::TRACE, model, prompts, *batch_tokens);
        let Traced { responses, prompts, co_activation } =
            trace(&ProbeRequest { kinds: &args.units, ..all }, more, &bar)?;
        bar.finish();
        let shape = model.shape();
        let units = |deposit: &Deposit| Units::of(deposit, &shape, &args.units);
        let prompt_tokens = prompts.as_ref().map(units);
        Ok(Found { units: units(&responses), prompt_tokens, co_activation })
    }

    fn of_tag(&self, prompts: &Readable, tag: &String) -> Result<TagReport> {
        let some = tagged(prompts, tag);
        let found = self.of(&some, &format!("tracing {tag}"))?;
        let (prompts, response_tokens) = (some.sequences.len(), response_tokens(&some));
        Ok(TagReport { prompts, response_tokens, found })
    }
}

/// `uspx probe trace`.
pub(super) fn run(args: &TraceArgs, shutdown: &Shutdown) -> Result<()> {
    check(args)?;
    let with = (Workload::Forward, Saes::default());
    let (Subject { model, prompts, batch_tokens, scored }, given) = match args.tokenised {
        true => (models::tokenised(&args.common, with)?, true),
        false => (models::subject(&args.common, with, shutdown)?, false),
    };
    let tracing = Tracing { args, model, batch_tokens, shutdown };
    let start = Instant::now();
    let mut found = tracing.of(&prompts, "tracing")?;
    let mut pass_seconds = vec![start.elapsed().as_secs_f64()];
    for _ in 1..args.repeat {
        let start = Instant::now();
        found = tracing.of(&prompts, "tracing")?;
        pass_seconds.push(start.elapsed().as_secs_f64());
    }
    let tags = if args.by_tag { tags_of(&prompts) } else { BTreeSet::new() };
    let tagged = |tag: String| Ok((tag.clone(), tracing.of_tag(&prompts, &tag)?));
    let tags = tags.into_iter().map(tagged).collect::<Result<_>>()?;
    let tokens: usize = prompts.sequences.iter().map(|s| s.ids.len()).sum();
    let report = TraceReport {
        model: about(&tracing.model),
        prompts: prompts.sequences.len(),
        scored: (!given).then_some(scored),
        tokens: tokens as u64,
        response_tokens: response_tokens(&prompts),
        tokens_per_second: (tokens * args.repeat) as f64 / pass_seconds.iter().sum::<f64>(),
        pass_seconds,
        streamed: tracing.model.transformer.is_streamed(),
        batch_tokens,
        peak_rss_bytes: memory::peak_rss(),
        found,
        tags,
        seam_prompts: prompts.seams,
        skipped: left_out::listed(&prompts.skipped),
    };
    if args.common.run.json { output::json(&report) } else { show(&report) }
}

/// Before the model is opened: what a trace can tell.
fn check(args: &TraceArgs) -> Result<()> {
    let served = Estimator::TRACE.row().kinds;
    let Some(kind) = args.units.iter().find(|kind| !served.contains(kind)) else { return Ok(()) };
    let names: Vec<&str> = served.iter().map(|kind| kind.name()).collect();
    Err(CliError::new(Exit::Usage, format!("a trace tells nothing of {kind}s"))
        .help(format!("choose among --units {}", names.join(","))))
}

fn about(model: &LoadedModel) -> ModelReport {
    let shape = model.shape();
    ModelReport {
        fingerprint: model.fingerprint,
        architecture: model.transformer.config().architecture.clone(),
        layers: shape.depth(),
        experts: shape.widths(UnitKind::Expert).into(),
        heads: shape.widths(UnitKind::Head).into(),
    }
}

fn response_tokens(prompts: &Readable) -> u64 {
    prompts.sequences.iter().map(|s| s.response_len() as u64).sum()
}

fn tags_of(prompts: &Readable) -> BTreeSet<String> {
    prompts.prompts.iter().flat_map(|p| p.tags.iter().cloned()).collect()
}

/// The prompts that have a tag.
fn tagged(prompts: &Readable, tag: &String) -> Readable {
    let both = prompts.prompts.iter().zip(&prompts.sequences);
    let own = both.filter(|(prompt, _)| prompt.tags.contains(tag));
    let (prompts, sequences) = own.map(|(p, s)| (p.clone(), s.clone())).unzip();
    Readable { prompts, sequences, ..Readable::default() }
}

/// Prints the first units of each layer, of each kind.
fn show(report: &TraceReport) -> Result<()> {
    let tokens = report.response_tokens;
    let said = format!("{} prompts' {tokens} response tokens", report.prompts);
    let Units { experts, heads, channels, expert_channels } = &report.found.units;
    if let Some(ExpertReport { count, .. }) = experts {
        let what = format!("experts by how often {said} are routed to them (expert:share)");
        table(&what, "experts", count, tokens as f64)?;
    }
    if let Some(HeadReport { norm, .. }) = heads {
        let what = format!("heads by the mean norm of their output on {said} (head:norm)");
        table(&what, "heads", norm, tokens as f64)?;
    }
    for (name, of) in [("channels", channels), ("expert channels", expert_channels)] {
        if let Some(ChannelReport { magnitude, .. }) = of {
            let what = format!("{name} by their mean size on {said} (channel:size)");
            table(&what, name, magnitude, tokens as f64)?;
        }
    }
    output::line(&format!("{:.0} tokens per second", report.tokens_per_second))
}

/// The first units of each layer.
fn table(what: &str, name: &str, grid: &Grid, whole: f64) -> Result<()> {
    let most = grid.iter().map(Vec::len).max().unwrap_or(0);
    if most == 0 {
        return Ok(());
    }
    let shown = (usize::from(output::columns()).saturating_sub(LAYER) / SHARE).min(most);
    output::paragraph(&format!("{what}; the first {shown} of {most}"))?;
    let mut table = output::table(&["layer", name]);
    for (layer, values) in grid.iter().enumerate() {
        table.add_row([layer.to_string(), ranked(values, whole, shown)]);
    }
    output::line(&table.to_string())
}

/// Columns that a layer's number and one unit's share take.
const LAYER: usize = 8;
const SHARE: usize = 10;

fn ranked(values: &[f64], whole: f64, most: usize) -> String {
    let mut order: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let each = |(unit, value): &(usize, f64)| format!("{unit}:{:.2}", value / whole);
    let each = |at: &(usize, f64)| format!("{:<width$}", each(at), width = SHARE - 1);
    order.iter().take(most).map(each).collect::<Vec<_>>().join(" ")
}

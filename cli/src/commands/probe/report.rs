//! `uspx probe report`: every way to rank units, judged on held-out prompts, as one page and as
//! JSON.
//!
//! `evidence` measures what units score, `target` says what each way keeps at each fraction,
//! `judged` runs that on the held-out prompts, `agreement` holds scores against exact effects and
//! against themselves, `figures` gathers the numbers, `page` (with `plot`) shows them.

mod agreement;
mod evidence;
mod figures;
mod judged;
mod page;
mod plot;
mod target;

use super::super::held_out;
use crate::args::ReportArgs;
use crate::draft::FileDraft;
use crate::error::{CliError, Exit, Result};
use crate::left_out;
use crate::models::{self, Opened};
use crate::output;
use crate::progress::Bar;
use crate::prompts::PromptSource;
use crate::rows::Ranking;
use crate::scored::Scored;
use crate::splits::no_prompt_twice;
use agreement::Agreement;
use evidence::Evidence;
use figures::{Figures, TargetFigures};
use judged::Judged;
use std::collections::HashSet;
use std::time::Instant;
use target::{Target, ways};
use uspx_colony::Dice;
use uspx_colony::bootstrap::Draws;
use uspx_domain::{ModelShape, Needs, Prompt, UnitKind};
use uspx_model::budget::Workload;
use uspx_model::{LoadedModel, Readable};
use uspx_probe::mean_outputs;
use uspx_runtime::{Shutdown, memory};

/// Draws of the prompts that an interval is taken from.
const DRAWS: usize = 1000;
/// Where no file of them is named, one in so many prompts is held out.
const HELD_OUT: usize = 2;

/// A model, the prompts that its units are scored by, and those that masks are judged by.
struct Bench<'a> {
    args: &'a ReportArgs,
    shutdown: &'a Shutdown,
    model: LoadedModel,
    batch_tokens: usize,
    shape: ModelShape,
    kinds: Vec<UnitKind>,
    fit: Readable,
    held_out: Readable,
    scored: Scored,
}

/// `uspx probe report`.
pub fn run(args: &ReportArgs, shutdown: &Shutdown) -> Result<()> {
    let start = Instant::now();
    check(args)?;
    // It can take hours: that its result can be written is known before.
    let beside = args.out.with_extension("json");
    let (page, numbers) = (FileDraft::of(&args.out)?, FileDraft::of(&beside)?);
    let bench = Bench::open(args, shutdown)?;
    let mut found = measured(&bench)?;
    found.seconds = start.elapsed().as_secs_f64();
    let failed = |e: &dyn std::fmt::Display| CliError::new(Exit::Failed, e);
    let text = serde_json::to_vec_pretty(&found).map_err(|e| failed(&e))?;
    let html = page::page(&found).map_err(|e| failed(&e))?;
    page.keep(html.as_bytes())?;
    numbers.keep(&text)?;
    if args.common.run.json { output::json(&found) } else { tell(args, &found) }
}

/// What the flags alone can be refused for.
fn check(args: &ReportArgs) -> Result<()> {
    if args.out.extension().is_some_and(|end| end == "json") {
        let what = format!("{} is where the numbers go", args.out.display());
        return Err(CliError::new(Exit::Usage, what).help("name a page: --out report.html"));
    }
    let kinds = args.kinds();
    let ranks = |ranking: &Ranking, kind: &UnitKind| !ranking.statistics(*kind).is_empty();
    if let Some(kind) = kinds.iter().find(|kind| !ranks(&Ranking::Ensemble, kind)) {
        return Err(Ranking::Ensemble.cannot_rank(*kind));
    }
    let useless = |method: &&Ranking| !kinds.iter().any(|kind| ranks(method, kind));
    match (args.methods.iter().find(useless), kinds.first()) {
        (Some(method), Some(kind)) => Err(method.cannot_rank(*kind)),
        _ => Ok(()),
    }
}

/// The prompts to score by and those to judge by, none of them in both.
fn split(args: &ReportArgs) -> Result<[Vec<Prompt>; 2]> {
    let common = &args.common;
    let mut fit = common.source().read()?.prompts;
    fit.truncate(common.limit.unwrap_or(usize::MAX));
    let judged = match &args.held_out {
        Some(file) => PromptSource::new(file, common.text, common.skip_bad).read()?.prompts,
        None => {
            let why = "to judge by (--held-out FILE names others)";
            held_out(&mut fit, HELD_OUT, args.seed, why)
        }
    };
    if fit.is_empty() || judged.is_empty() {
        let message = "at least one prompt to score units by and one to judge by are needed";
        return Err(CliError::new(Exit::BadInput, message).help("give more prompts"));
    }
    no_prompt_twice(&[&fit, &judged])?;
    Ok([fit, judged])
}

/// Gradients take memory: whether any way to rank needs them.
fn workload(args: &ReportArgs) -> Workload {
    let kinds = args.kinds().into_iter();
    let all = kinds.flat_map(|kind| {
        args.rankings(kind).into_iter().flat_map(move |ranking| ranking.estimators(kind))
    });
    match all.into_iter().any(|estimator| estimator.row().needs == Needs::Gradients) {
        true => Workload::Backward,
        false => Workload::Forward,
    }
}

/// The kinds that are asked for and the model has.
fn kinds_here(args: &ReportArgs, shape: &ModelShape) -> Result<Vec<UnitKind>> {
    let (here, missing): (Vec<UnitKind>, Vec<UnitKind>) =
        args.kinds().into_iter().partition(|kind| shape.count(*kind) > 0);
    match missing.first().filter(|_| !args.units.is_empty()) {
        Some(kind) => {
            let what = format!("the model has no {kind}s");
            Err(CliError::new(Exit::BadInput, what).help("choose other --units"))
        }
        None => Ok(here),
    }
}

impl<'a> Bench<'a> {
    fn open(args: &'a ReportArgs, shutdown: &'a Shutdown) -> Result<Self> {
        let [fit, judged] = split(args)?;
        let unanswered = fit.iter().chain(&judged).filter(|p| p.reference.is_none());
        let open: HashSet<String> = unanswered.map(|p| p.id.clone()).collect();
        let opened = models::opened(&args.common.model, &args.common.run, workload(args))?;
        let Opened { model, batch_tokens, room, .. } = opened;
        let shape = model.shape();
        let kinds = kinds_here(args, &shape)?;
        let answered = |all| models::answered((&model, room), all, &args.common, shutdown);
        let (fit, held_out) = (answered(fit)?, answered(judged)?);
        let scored = Scored::of(&[fit.prompts.as_slice(), &held_out.prompts].concat(), &open);
        if !args.common.run.json {
            scored.tell();
        }
        Ok(Self { args, shutdown, model, batch_tokens, shape, kinds, fit, held_out, scored })
    }

    fn bar(&self, stage: &str) -> Bar {
        Bar::new(stage, self.args.common.run.json, self.shutdown)
    }
}

/// All of it.
fn measured(bench: &Bench<'_>) -> Result<Figures> {
    let Bench { args, model, shape, kinds, fit, held_out, batch_tokens, .. } = bench;
    let bar = bench.bar("mean outputs");
    let means = mean_outputs(model, fit, kinds, *batch_tokens, &bar)?;
    bar.finish();
    let (mut found, mut costs) = (Vec::new(), Vec::new());
    for kind in kinds {
        let (evidence, own) = Evidence::measured(bench, *kind)?;
        found.push(evidence);
        costs.extend(own);
    }
    let mut dice = Dice::new(args.seed, "held-out draws", 0);
    let draws = Draws::new(held_out.sequences.len(), DRAWS, &mut dice);
    let together = (kinds.len() > 1).then(|| kinds.clone());
    let mut targets = Vec::new();
    for kinds in kinds.iter().map(|kind| vec![*kind]).chain(together) {
        let target = Target::of((model.fingerprint, shape), kinds, &args.shares());
        let ways = ways(args, &target, &found);
        let judged = Judged::of(bench, &target, &ways, &means)?;
        let mut figures = TargetFigures::of(&target, &ways, &judged, &draws);
        if let [kind] = target.kinds.as_slice() {
            let own = found.iter().find(|evidence| evidence.kind == *kind);
            figures.agreement = own.map(|own| Agreement::of(bench, own)).transpose()?;
        }
        targets.push(figures);
    }
    Ok(Figures {
        model: model.fingerprint,
        name: uspx_model::model_name(&args.common.model),
        fit: fit.into(),
        held_out: held_out.into(),
        scored: bench.scored,
        draws: DRAWS,
        random: args.random,
        seed: args.seed,
        targets,
        costs,
        seconds: 0.0,
        peak_rss_bytes: memory::peak_rss(),
        skipped: left_out::listed(&[fit.skipped.as_slice(), &held_out.skipped].concat()),
    })
}

/// The default's figures, and where the page is.
fn tell(args: &ReportArgs, found: &Figures) -> Result<()> {
    for target in &found.targets {
        output::paragraph(&target.summary())?;
    }
    output::paragraph(&format!(
        "every way to rank them is judged in {}, on {} held-out prompts, after {}",
        args.out.display(),
        found.held_out.prompts,
        output::time(found.seconds)
    ))
}

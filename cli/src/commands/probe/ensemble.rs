//! `uspx probe patch --method ensemble`: the mean of the ranks that several cheap scores give, which
//! masks are made by where no method is named.

use super::{clean_loss, kinds_here, layers};
use crate::args::PatchArgs;
use crate::error::{CliError, Exit, Result};
use crate::grid::{Grid, place, zeros};
use crate::left_out::{self, LeftOut};
use crate::measured::{needed, together};
use crate::models::{self, Subject};
use crate::output;
use crate::rows::Ranking;
use crate::saes::Saes;
use crate::scored::Scored;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;
use uspx_colony::Dice;
use uspx_colony::bootstrap::Draws;
use uspx_colony::mask::ranks_of_prompts;
use uspx_domain::{Deposit, Estimator, ModelShape, Statistic, Unit, UnitKind};
use uspx_model::PerPrompt;
use uspx_model::budget::Workload;
use uspx_probe::ProbeRequest;
use uspx_runtime::Shutdown;

/// Units of a kind that are listed where not all are asked for.
const TOP: usize = 20;
/// Draws of the prompts that standard errors come from.
const DRAWS: usize = 200;

/// The JSON form: as of effects, with ranks in their place.
#[derive(Serialize)]
struct RankReport {
    method: &'static str,
    prompts: usize,
    /// Each score has its own.
    baseline: Option<&'static str>,
    scored: Scored,
    clean_loss: f64,
    /// What each kind is ranked by.
    scores: BTreeMap<String, Vec<&'static str>>,
    /// Mean ranks, from 0 (what matters least) to below 1.
    effects: BTreeMap<String, Grid>,
    /// Over the prompts.
    stderr: BTreeMap<String, Grid>,
    forwards: f64,
    backwards: f64,
    seconds: f64,
    seam_prompts: u32,
    skipped: Vec<LeftOut>,
}

/// The kinds that several scores rank, prompt by prompt.
fn served(kind: &UnitKind) -> bool {
    !kind.is_large() && !Ranking::Ensemble.statistics(*kind).is_empty()
}

/// Before the model is opened: what an ensemble has no say in.
fn check(args: &PatchArgs) -> Result<()> {
    let refuse = |what: String, help: &str| Err(CliError::new(Exit::Usage, what).help(help));
    let flags = [
        ("--baseline", args.baseline.is_some()),
        ("--expert-mode", args.expert_mode.is_some()),
        ("--steps", args.steps.is_some()),
    ];
    if let Some((flag, _)) = flags.iter().find(|(_, given)| *given) {
        let what = format!("each score of the ensemble has its own {}", flag.trim_matches('-'));
        return refuse(what, &format!("leave out {flag}, or name one --method"));
    }
    match args.units.iter().find(|kind| !served(kind)) {
        Some(kind) => refuse(
            format!("{kind}s are not ranked by several scores"),
            "choose other --units, or name one --method",
        ),
        None => Ok(()),
    }
}

/// Measures and ranks.
pub(super) fn run(args: &PatchArgs, shutdown: &Shutdown) -> Result<()> {
    check(args)?;
    let with = (Workload::Backward, Saes::read(&args.saes)?);
    let Subject { model, prompts, scored, batch_tokens } = match args.tokenised {
        true => models::tokenised(&args.common, with)?,
        false => models::subject(&args.common, with, shutdown)?,
    };
    let shape = model.shape();
    let has = |kind: &UnitKind| served(kind) && shape.count(*kind) > 0;
    let all: Vec<UnitKind> = UnitKind::ALL.iter().copied().filter(has).collect();
    let kinds = kinds_here(args, &shape, &all)?;
    let layers = layers(args.layers.as_deref(), shape.depth())?;
    let within = args.mask.as_deref().map(|path| models::cut(path, &model)).transpose()?;
    let request = |estimator| ProbeRequest {
        layers: layers.clone(),
        within: within.as_ref(),
        ..ProbeRequest::all(estimator, &model, &prompts, batch_tokens)
    };
    let clean_loss = clean_loss(&request(Estimator::TRACE))?;
    // As of effects, what the clean loss takes is no part of the cost.
    let (start, before) = (Instant::now(), model.transformer.passes());
    let mut report = RankReport {
        method: Ranking::Ensemble.name(),
        prompts: prompts.sequences.len(),
        baseline: None,
        scored,
        clean_loss,
        scores: BTreeMap::new(),
        effects: BTreeMap::new(),
        stderr: BTreeMap::new(),
        forwards: 0.0,
        backwards: 0.0,
        seconds: 0.0,
        seam_prompts: prompts.seams,
        skipped: left_out::listed(&prompts.skipped),
    };
    let needed = needed(&[Ranking::Ensemble], &kinds);
    let deposit = together(&needed, request, (args.common.run.json, shutdown))?;
    let mut dice = Dice::new(args.seed, "prompts of ranks", 0);
    let draws = Draws::new(prompts.sequences.len(), DRAWS, &mut dice);
    for kind in kinds {
        let statistics = Ranking::Ensemble.statistics(kind);
        let ranks = ranked(&deposit, (kind, &statistics), &draws);
        let (means, errors) = grids(&ranks, &shape, kind, &layers);
        let names = statistics.iter().map(|statistic| statistic.name()).collect();
        report.scores.insert(kind.to_string(), names);
        report.effects.insert(kind.to_string(), means);
        report.stderr.insert(kind.to_string(), errors);
    }
    report.seconds = start.elapsed().as_secs_f64();
    let passes = model.transformer.passes().since(before);
    let per_prompt = passes.per_prompt(model.transformer.layers(), prompts.sequences.len());
    PerPrompt { forwards: report.forwards, backwards: report.backwards } = per_prompt;
    if args.common.run.json { output::json(&report) } else { show(&report, args.all) }
}

/// Of every unit of a kind that was measured, its mean rank and the standard error of that.
type Ranks = BTreeMap<Unit, (f64, f64)>;

fn ranked(deposit: &Deposit, (kind, statistics): (UnitKind, &[Statistic]), draws: &Draws) -> Ranks {
    let score = |statistic: &Statistic| {
        let columns = deposit.columns.iter();
        let own = columns.filter(|c| c.unit.kind == kind && c.statistic == *statistic);
        own.map(|column| (column.unit, column.values.as_slice())).collect()
    };
    ranks_of_prompts(&statistics.iter().map(score).collect::<Vec<_>>(), draws)
}

fn grids(
    ranks: &Ranks,
    shape: &ModelShape,
    kind: UnitKind,
    layers: &std::ops::Range<u32>,
) -> (Grid, Grid) {
    let (mut means, mut errors) = (zeros(shape, kind, layers), zeros(shape, kind, layers));
    for (unit, (mean, error)) in ranks {
        place(&mut means, *unit).into_iter().for_each(|place| *place = *mean);
        place(&mut errors, *unit).into_iter().for_each(|place| *place = *error);
    }
    (means, errors)
}

/// Prints the units of each kind that rank first.
fn show(report: &RankReport, all: bool) -> Result<()> {
    for (kind, grid) in &report.effects {
        let scores = report.scores.get(kind).map(|names| names.join(", ")).unwrap_or_default();
        output::paragraph(&format!(
            "{kind}s by the mean of their ranks, 0 for what matters least, on {} prompts ({scores}):",
            report.prompts
        ))?;
        let mut rows: Vec<(usize, usize, f64)> = grid
            .iter()
            .enumerate()
            .flat_map(|(layer, row)| row.iter().enumerate().map(move |(i, rank)| (layer, i, *rank)))
            .collect();
        rows.sort_by(|a, b| b.2.total_cmp(&a.2));
        let mut table = output::table(&["unit", "rank", "standard error"]);
        for (layer, index, rank) in rows.iter().take(if all { usize::MAX } else { TOP }) {
            let errors = report.stderr.get(kind).and_then(|grid| grid.get(*layer));
            let error = errors.and_then(|row| row.get(*index)).copied().unwrap_or(f64::NAN);
            let unit = format!("{kind}:{layer}.{index}");
            table.add_row([unit, format!("{rank:.3}"), format!("{error:.3}")]);
        }
        output::line(&table.to_string())?;
    }
    output::paragraph(&format!(
        "{:.1} s, {:.2} forward and {:.2} backward passes a prompt",
        report.seconds, report.forwards, report.backwards
    ))
}

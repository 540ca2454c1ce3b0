//! `uspx mask build`: scores on this machine, and the colony's own rule to cut by.

use super::probe::{divided, sums};
use crate::args::{MaskBuildArgs, ScoreMethod, Spread};
use crate::error::{CliError, Exit, Result};
use crate::left_out::{self, LeftOut};
use crate::models::{self, Subject};
use crate::output;
use crate::progress::Bar;
use serde::Serialize;
use std::collections::BTreeMap;
use uspx_colony::Share;
use uspx_colony::combine::Score;
use uspx_colony::mask::{Budget, Rule, build as best};
use uspx_domain::{Baseline, Deposit, Mask, Statistic, Unit, UnitKind};
use uspx_model::budget::Work;
use uspx_runtime::Shutdown;

/// `uspx mask build`.
pub fn build(args: &MaskBuildArgs, shutdown: &Shutdown) -> Result<()> {
    if !(args.keep > 0.0 && args.keep <= 1.0) {
        return Err(CliError::new(Exit::Usage, format!("--keep {} is no share: above 0, at most 1", args.keep)));
    }
    // Scoring can take hours: that the mask can be written is known before.
    let part = args.out.with_extension("part");
    std::fs::write(&part, "").map_err(|e| CliError::file(&part, &e))?;
    let built = score_and_cut(args, shutdown);
    let done = built.and_then(|built| {
        let text = serde_json::to_string_pretty(&built.mask).map_err(|e| CliError::new(Exit::Failed, e))?;
        let written = std::fs::write(&part, text + "\n").and_then(|()| std::fs::rename(&part, &args.out));
        written.map_err(|e| CliError::file(&args.out, &e))?;
        Ok(built)
    });
    if done.is_err() {
        // Nothing half-made stays behind; that it cannot be removed is not worth a second error.
        let _ = std::fs::remove_file(&part);
    }
    show(args, &done?)
}

/// The JSON form: the mask as it stands in its file, and the prompts that were left out, if any.
#[derive(Serialize)]
struct Built {
    #[serde(flatten)]
    mask: Mask,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<LeftOut>,
}

fn show(args: &MaskBuildArgs, built: &Built) -> Result<()> {
    if args.common.run.json {
        return output::json(built);
    }
    let kind = UnitKind::from(args.units);
    let kept: usize = built.mask.lists(kind).into_iter().flatten().map(Vec::len).sum();
    output::line(&format!("{}: keeps {kept} {kind}s", args.out.display()))
}

/// The mask of the best units at the budget.
fn score_and_cut(args: &MaskBuildArgs, shutdown: &Shutdown) -> Result<Built> {
    let subject = models::subject(&args.common, Work::Backward, shutdown)?;
    let (kind, shape) = (UnitKind::from(args.units), subject.model.shape());
    if shape.per_layer(kind) == 0 {
        return Err(CliError::new(Exit::BadInput, format!("the model has no {kind}s to cut")));
    }
    let bar = Bar::new("scoring units", args.common.run.json, shutdown);
    let grid = scores(args, &subject, kind, &bar)?;
    bar.finish();
    let value = |u: Unit| grid.get(u.layer as usize).and_then(|l| l.get(u.index as usize)).copied().unwrap_or(0.0);
    let scores: BTreeMap<Unit, Score> =
        shape.units(kind).map(|u| (u, Score { mean: value(u), error: 0.0, effective: 1.0 })).collect();
    let rule = match args.spread {
        Spread::Global => Rule::Global,
        Spread::Uniform => Rule::Uniform,
    };
    let budget = Budget { model: subject.model.fingerprint, shape, kind, keep: Share::nearest(args.keep), rule };
    Ok(Built { mask: budget.mask(best(&budget, &scores)), skipped: left_out::listed(&subject.prompts.skipped) })
}

fn scores(args: &MaskBuildArgs, subject: &Subject, kind: UnitKind, bar: &Bar) -> Result<Vec<Vec<f64>>> {
    let Subject { model, prompts, batch_tokens } = subject;
    let (shape, tokens) = (model.shape(), *batch_tokens);
    let experts_only = |method: &str| {
        CliError::new(Exit::Usage, format!("{method} scores experts only"))
            .help("use --method exact, atp or norm for heads")
    };
    let traced = |statistic: Statistic| -> Result<(Deposit, Vec<Vec<f64>>)> {
        let deposit = uspx_probe::trace::trace(model, prompts, tokens, bar)?;
        let grid = sums(&deposit.columns, &shape, kind, statistic);
        Ok((deposit, grid))
    };
    match (args.method, kind) {
        (ScoreMethod::Exact, _) => {
            let units: Vec<Unit> = shape.units(kind).collect();
            let deposit = uspx_probe::exact_effects(model, prompts, &units, tokens, bar)?;
            Ok(sums(&deposit.columns, &shape, kind, Statistic::Exact))
        }
        (ScoreMethod::Atp, _) => {
            let deposit = uspx_probe::patch::attribution(model, prompts, &[kind], Baseline::Mean, tokens, bar)?;
            Ok(sums(&deposit.columns, &shape, kind, Statistic::AtpAbs))
        }
        (ScoreMethod::Norm, UnitKind::Head) => Ok(traced(Statistic::HeadNorm)?.1),
        (ScoreMethod::Norm, _) => Err(CliError::new(Exit::Usage, "norm scores heads only")),
        (method, UnitKind::Expert) => {
            let (deposit, grid) = traced(match method {
                ScoreMethod::Frequency => Statistic::Count,
                ScoreMethod::EasyEp => Statistic::EasyEp,
                _ => Statistic::Saliency,
            })?;
            if method == ScoreMethod::Reap {
                return Ok(divided(&grid, &sums(&deposit.columns, &shape, kind, Statistic::Count)));
            }
            Ok(grid)
        }
        _ => Err(experts_only("this method")),
    }
}

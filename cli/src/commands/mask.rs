//! `uspx mask build`: scores on this machine, and the colony's own rule to cut by.
//!
//! `forecast` says before what that will cost, `cost` after what the cut does, `show` what a mask
//! keeps (`uspx mask show`), `export` writes a model without the rest (`uspx mask export`).

mod cost;
mod export;
mod forecast;
mod show;

use crate::args::{MaskBuildArgs, Spread};
use crate::error::{CliError, Exit, Result};
use crate::grid::{Grid, divided, sums};
use crate::left_out::{self, LeftOut};
use crate::models::{self, Subject};
use crate::output;
use crate::progress::Bar;
use crate::rows::Ranking;
use serde::Serialize;
use std::collections::BTreeMap;
use uspx_colony::Share;
use uspx_colony::combine::Score;
use uspx_colony::mask::{Budget, Rule, build as best};
use uspx_domain::{Estimator, Mask, Unit};
use uspx_model::budget::Workload;
use uspx_probe::{ProbeRequest, measure};
use uspx_runtime::Shutdown;

/// `uspx mask build`.
pub fn build(args: &MaskBuildArgs, shutdown: &Shutdown) -> Result<()> {
    if !(args.keep > 0.0 && args.keep <= 1.0) {
        return Err(CliError::new(
            Exit::Usage,
            format!("--keep {} is not a share: above 0, at most 1", args.keep),
        ));
    }
    // Scoring can take hours: that the mask can be written is known before.
    let part = args.out.with_extension("part");
    std::fs::write(&part, "").map_err(|e| CliError::file(&part, &e))?;
    let built = score_and_cut(args, shutdown);
    let done = built.and_then(|built| {
        let text = serde_json::to_string_pretty(&built.mask)
            .map_err(|e| CliError::new(Exit::Failed, e))?;
        let written =
            std::fs::write(&part, text + "\n").and_then(|()| std::fs::rename(&part, &args.out));
        written.map_err(|e| CliError::file(&args.out, &e))?;
        Ok(built)
    });
    if done.is_err() {
        // Nothing half-made stays behind; that it cannot be removed is not worth a second error.
        let _ = std::fs::remove_file(&part);
    }
    tell(args, &done?)
}

pub use export::run as export;
pub use show::run as show;

/// The JSON form: the mask as it stands in its file, and the prompts that were left out, if any.
#[derive(Serialize)]
struct Built {
    #[serde(flatten)]
    mask: Mask,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<LeftOut>,
    #[serde(skip)]
    cost: Option<cost::Cost>,
}

fn tell(args: &MaskBuildArgs, built: &Built) -> Result<()> {
    if args.common.run.json {
        return output::json(built);
    }
    show::print(&args.out, &built.mask)?;
    built.cost.as_ref().map_or(Ok(()), |cost| output::paragraph(&cost.to_string()))
}

/// The mask of the best units at the budget.
fn score_and_cut(args: &MaskBuildArgs, shutdown: &Shutdown) -> Result<Built> {
    let subject = models::subject(&args.common, Workload::Backward, shutdown)?;
    let (kind, shape) = (args.units, subject.model.shape());
    if shape.count(kind) == 0 {
        return Err(CliError::new(Exit::BadInput, format!("the model has no {kind}s to cut")));
    }
    if !args.common.run.json {
        forecast::tell(args, &subject)?;
    }
    let bar = Bar::new("scoring units", args.common.run.json, shutdown);
    let grid = scores(args, &subject, &bar)?;
    bar.finish();
    let value = |u: Unit| {
        grid.get(u.layer as usize).and_then(|l| l.get(u.index as usize)).copied().unwrap_or(0.0)
    };
    let scores: BTreeMap<Unit, Score> = shape
        .units(kind)
        .map(|u| (u, Score { mean: value(u), error: 0.0, effective: 1.0 }))
        .collect();
    let rule = match args.spread {
        Spread::Global => Rule::Global,
        Spread::Uniform => Rule::Uniform,
    };
    let (model, keep) = (subject.model.fingerprint, Share::nearest(args.keep));
    let budget = Budget { model, shape: &shape, kind, keep, rule };
    let mask = budget.mask(best(&budget, &scores));
    // For people alone: a program measures it where it wants it.
    let wanted = !args.common.run.json && !subject.model.transformer.is_streamed();
    let cost = wanted.then(|| cost::of(&subject, &mask)).transpose()?;
    Ok(Built { mask, skipped: left_out::listed(&subject.prompts.skipped), cost })
}

fn scores(args: &MaskBuildArgs, subject: &Subject, bar: &Bar) -> Result<Grid> {
    let Subject { model, prompts, batch_tokens, .. } = subject;
    let (kind, ranking, shape) = (args.units, args.method, model.shape());
    let estimator = estimator(args)?;
    let request = ProbeRequest {
        kinds: &[kind],
        ..ProbeRequest::all(estimator, model, prompts, *batch_tokens)
    };
    let deposit = measure(estimator, &request, bar)?;
    let of = |statistic| sums(&deposit, &shape, kind, statistic);
    let grid = of(ranking.statistic);
    Ok(ranking.method.per.map_or_else(|| grid.clone(), |per| divided(&grid, &of(per))))
}

/// What measures what the units are ranked by.
fn estimator(args: &MaskBuildArgs) -> Result<Estimator> {
    let (kind, ranking) = (args.units, args.method);
    ranking.estimator(kind).ok_or_else(|| {
        let what = format!("the method {} does not rank {kind}s", ranking.method.name);
        CliError::new(Exit::Usage, what).help(format!("these do: {}", Ranking::names_for(kind)))
    })
}

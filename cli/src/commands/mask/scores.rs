//! What `mask build` ranks units by, measured: every estimator once, on all prompts.

use crate::args::MaskBuildArgs;
use crate::error::{CliError, Exit, Result};
use crate::grid::{Grid, divided, sums};
use crate::models::Subject;
use crate::progress::Bar;
use crate::rows::Ranking;
use std::collections::BTreeMap;
use uspx_domain::{Deposit, Statistic, Unit};
use uspx_probe::{ProbeRequest, measure};
use uspx_runtime::Shutdown;

/// Scores of every unit, larger for what matters more; several where the method has several.
pub(super) fn measured(
    args: &MaskBuildArgs,
    subject: &Subject,
    shutdown: &Shutdown,
) -> Result<Vec<BTreeMap<Unit, f64>>> {
    let Subject { model, prompts, batch_tokens, .. } = subject;
    let (kind, ranking, shape) = (args.units, args.ranking(), model.shape());
    let estimators = ranking.estimators(kind);
    if estimators.is_empty() {
        let what = format!("the method {} does not rank {kind}s", ranking.name());
        let help = format!("these do: {}", Ranking::names_for(kind));
        return Err(CliError::new(Exit::Usage, what).help(help));
    }
    let mut found = Deposit::default();
    for estimator in estimators {
        let bar = Bar::new(&format!("scoring by {estimator}"), args.common.run.json, shutdown);
        let request = ProbeRequest {
            kinds: &[kind],
            ..ProbeRequest::all(estimator, model, prompts, *batch_tokens)
        };
        let Deposit { prompts, columns, moments } = measure(estimator, &request, &bar)?;
        bar.finish();
        found.prompts = prompts;
        found.columns.extend(columns);
        found.moments.extend(moments);
    }
    let of = |statistic: Statistic| sums(&found, &shape, kind, statistic);
    let grids: Vec<Grid> = match ranking {
        Ranking::Ensemble => ranking.statistics(kind).into_iter().map(of).collect(),
        Ranking::Score(statistic, method) => {
            let grid = of(statistic);
            vec![method.per.map_or_else(|| grid.clone(), |per| divided(&grid, &of(per)))]
        }
    };
    let by_unit = |grid: &Grid| {
        let value = |u: Unit| grid.get(u.layer as usize)?.get(u.index as usize).copied();
        shape.units(kind).map(|u| (u, value(u).unwrap_or(0.0))).collect()
    };
    Ok(grids.iter().map(by_unit).collect())
}

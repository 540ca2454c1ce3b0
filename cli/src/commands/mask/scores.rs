//! What `mask build` ranks units by, measured: every estimator once, on all prompts.

use crate::args::MaskBuildArgs;
use crate::error::{CliError, Exit, Result};
use crate::grid::{Grid, divided, sums};
use crate::measured::{needed, together};
use crate::models::Subject;
use crate::rows::Ranking;
use std::collections::BTreeMap;
use uspx_domain::{Statistic, Unit};
use uspx_probe::ProbeRequest;
use uspx_runtime::Shutdown;

/// Scores of every unit, larger for what matters more; several where the method has several.
pub(super) fn measured(
    args: &MaskBuildArgs,
    subject: &Subject,
    shutdown: &Shutdown,
) -> Result<Vec<BTreeMap<Unit, f64>>> {
    let Subject { model, prompts, batch_tokens, .. } = subject;
    let (kind, ranking, shape) = (args.units, args.ranking(), model.shape());
    let needed = needed(ranking, &[kind]);
    if needed.is_empty() {
        let what = format!("the method {} does not rank {kind}s", ranking.name());
        let help = format!("these do: {}", Ranking::names_for(kind));
        return Err(CliError::new(Exit::Usage, what).help(help));
    }
    let request = |estimator| ProbeRequest::all(estimator, model, prompts, *batch_tokens);
    let found = together(&needed, request, (args.common.run.json, shutdown))?;
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

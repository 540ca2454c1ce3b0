//! From what estimators found to scores of units, and from scores to the mask of the best: one way,
//! for `mask build` and the report that judges it.

use crate::grid::{Grid, divided};
use crate::rows::Ranking;
use std::collections::BTreeMap;
use uspx_colony::combine::Score;
use uspx_colony::mask::{Budget, build, mean_ranks};
use uspx_domain::{Mask, ModelShape, Statistic, Unit, UnitKind};

/// Scores of every unit, larger for what matters more; several where the way to rank has several.
/// `sums` gives a statistic's sums over the prompts.
pub fn scores(
    ranking: Ranking,
    kind: UnitKind,
    shape: &ModelShape,
    sums: impl Fn(Statistic) -> Grid,
) -> Vec<BTreeMap<Unit, f64>> {
    let grids: Vec<Grid> = match ranking {
        Ranking::Ensemble => ranking.statistics(kind).into_iter().map(sums).collect(),
        Ranking::Score(statistic, method) => {
            let grid = sums(statistic);
            vec![method.per.map_or_else(|| grid.clone(), |per| divided(&grid, &sums(per)))]
        }
    };
    let by_unit = |grid: &Grid| {
        let value = |u: Unit| grid.get(u.layer as usize)?.get(u.index as usize).copied();
        shape.units(kind).map(|u| (u, value(u).unwrap_or(0.0))).collect()
    };
    grids.iter().map(by_unit).collect()
}

/// One score of each unit.
pub fn combined(scores: &[BTreeMap<Unit, f64>]) -> BTreeMap<Unit, f64> {
    match scores {
        [one] => one.clone(),
        several => mean_ranks(several),
    }
}

/// The mask of the units that score best.
pub fn best_units(budget: &Budget<'_>, scores: &BTreeMap<Unit, f64>) -> Mask {
    let score =
        |(unit, mean): (&Unit, &f64)| (*unit, Score { mean: *mean, error: 0.0, effective: 1.0 });
    budget.mask(build(budget, &scores.iter().map(score).collect()))
}

//! Scores that agree on no scale, as one: the mean of a unit's ranks.

use std::collections::BTreeMap;
use uspx_domain::Unit;

/// The mean over `scores` of each unit's rank, from 0 (the least) to below 1; ties go by layer and
/// index. A unit that a score lacks is its least.
pub fn mean_ranks(scores: &[BTreeMap<Unit, f64>]) -> BTreeMap<Unit, f64> {
    let mut means: BTreeMap<Unit, f64> = BTreeMap::new();
    for unit in scores.iter().flat_map(BTreeMap::keys) {
        means.insert(*unit, 0.0);
    }
    let (units, count) = (means.len().max(1) as f64, scores.len().max(1) as f64);
    for score in scores {
        let value = |unit: &Unit| score.get(unit).copied().unwrap_or(f64::NEG_INFINITY);
        let mut order: Vec<Unit> = means.keys().copied().collect();
        order.sort_by(|a, b| value(a).total_cmp(&value(b)).then(b.cmp(a)));
        for (rank, unit) in order.iter().enumerate() {
            means.entry(*unit).and_modify(|mean| *mean += rank as f64 / units / count);
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::UnitKind;

    #[test]
    fn scales_do_not_matter_and_ties_go_to_the_first() {
        let unit = |index| Unit { kind: UnitKind::Expert, layer: 0, index };
        let of = |values: [f64; 4]| (0..).map(unit).zip(values).collect::<BTreeMap<_, _>>();
        let ranks = mean_ranks(&[of([3.0, 1.0, 2.0, 0.0]), of([4e9, 3e9, -1.0, -1.0])]);
        let got: Vec<f64> = ranks.into_values().collect();
        assert_eq!(got, [0.75, (0.25 + 0.5) / 2.0, (0.5 + 0.25) / 2.0, 0.0]);
        assert!(mean_ranks(&[]).is_empty());
    }

    #[test]
    fn what_a_score_lacks_is_its_least() {
        let unit = |index| Unit { kind: UnitKind::Expert, layer: 0, index };
        let some = BTreeMap::from([(unit(1), -5.0)]);
        let all = BTreeMap::from([(unit(0), 1.0), (unit(1), 1.0)]);
        let ranks = mean_ranks(&[some, all]);
        assert_eq!(ranks, BTreeMap::from([(unit(0), 0.25), (unit(1), 0.25)]));
    }
}

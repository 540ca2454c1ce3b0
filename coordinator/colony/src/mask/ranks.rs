//! Scores that agree on no scale, as one: the mean of a unit's ranks.

use crate::bootstrap::{Draws, pooled};
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

/// Mean ranks as [`mean_ranks`] has them, of sums over prompts, and their standard errors over the
/// prompts' `draws`, which all scores share. Each score has of every unit a value a prompt.
pub fn ranks_of_prompts(
    scores: &[BTreeMap<Unit, &[f32]>],
    draws: &Draws,
) -> BTreeMap<Unit, (f64, f64)> {
    let ranks = |counts: Option<&[u32]>| {
        let sum = |(unit, values): (&Unit, &&[f32])| (*unit, pooled(values, counts));
        let sums = scores.iter().map(|score| score.iter().map(sum).collect());
        mean_ranks(&sums.collect::<Vec<_>>())
    };
    let whole = ranks(None);
    // Σd and Σd² of how far each draw's rank is from that of the prompts as they are.
    let (mut n, mut moments) = (0.0, BTreeMap::<Unit, (f64, f64)>::new());
    for counts in draws.iter() {
        n += 1.0;
        for (unit, rank) in ranks(Some(counts)) {
            let off = rank - whole.get(&unit).copied().unwrap_or(0.0);
            let (sum, squares) = moments.entry(unit).or_default();
            *sum += off;
            *squares += off * off;
        }
    }
    let error = |unit: &Unit| {
        let (sum, squares) = moments.get(unit).copied().unwrap_or_default();
        ((squares - sum * sum / n).max(0.0) / (n - 1.0)).sqrt()
    };
    whole.into_iter().map(|(unit, rank)| (unit, (rank, error(&unit)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dice;
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

    /// Two units that change places with the prompts drawn, beside one that never does. Of four
    /// prompts of which one favours the second unit, 32 % of draws are without it: the rank is then one
    /// place off.
    #[test]
    fn errors_of_ranks_are_those_of_drawing_prompts_anew() {
        let unit = |index| Unit { kind: UnitKind::Expert, layer: 0, index };
        let values: [[f32; 4]; 3] = [[9.0; 4], [1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.5, 9.0]];
        let score = (0..).map(unit).zip(values.iter().map(|row| &row[..])).collect();
        let ranks = ranks_of_prompts(&[score], &Draws::new(4, 500, &mut Dice::new(1, "ranks", 0)));
        let want = (0.75f64.powi(4) * (1.0 - 0.75f64.powi(4))).sqrt() / 3.0;
        let (top, second, third) = (ranks[&unit(0)], ranks[&unit(1)], ranks[&unit(2)]);
        assert_eq!((top, second.0, third.0), ((2.0 / 3.0, 0.0), 0.0, 1.0 / 3.0));
        for (_, error) in [second, third] {
            assert!((error - want).abs() < 0.2 * want, "{error} against {want}");
        }
    }
}

//! What a unit has to score to be kept.

use super::Budget;
use crate::combine::Score;
use std::collections::BTreeMap;
use uspx_domain::Unit;

/// Of every unit the score above which `budget` keeps it and below which it is cut, the others' being as they are:
/// halfway between the last that is kept and the first that is not. What a layer keeps whatever it scores has a bar of
/// its own; it is −∞ where all are kept, and ∞ where none is.
pub fn bars(budget: &Budget<'_>, scores: &BTreeMap<Unit, Score>) -> BTreeMap<Unit, f64> {
    let firsts = budget.firsts();
    let mut parts: Vec<Vec<f64>> = vec![Vec::new(); firsts.len()];
    for unit in budget.shape.units(budget.kind) {
        let mean = scores.get(&unit).map_or(f64::NEG_INFINITY, |score| score.mean);
        parts.get_mut(budget.part(unit)).into_iter().for_each(|part| part.push(mean));
    }
    parts.iter_mut().for_each(|part| descend(part));
    let rest = parts.iter().zip(&firsts).flat_map(|(part, first)| part.iter().skip(*first));
    let mut rest: Vec<f64> = rest.copied().collect();
    descend(&mut rest);
    let common = halfway(&rest, budget.count().saturating_sub(firsts.iter().sum()));
    let own = parts.iter().zip(&firsts).map(|(part, first)| halfway(part, *first));
    let bars: Vec<f64> = own.map(|own| if own < common { own } else { common }).collect();
    let bar = |unit| bars.get(budget.part(unit)).copied().unwrap_or(common);
    budget.shape.units(budget.kind).map(|unit| (unit, bar(unit))).collect()
}

fn descend(means: &mut [f64]) {
    means.sort_by(|a, b| b.total_cmp(a));
}

/// Between the first `kept` of descending values and the others.
fn halfway(means: &[f64], kept: usize) -> f64 {
    let last = kept.checked_sub(1).map(|at| means.get(at).copied());
    match (last, means.get(kept)) {
        (None, _) => f64::INFINITY,
        (Some(Some(last)), Some(next)) => (last + next) / 2.0,
        _ => f64::NEG_INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Rule, build};
    use super::*;
    use crate::{Dice, Share};
    use proptest::prelude::*;
    use uspx_domain::{Digest, Fingerprint, UnitKind};

    proptest! {
        /// Against the builder itself: a unit whose score alone is moved over its bar changes sides.
        #[test]
        fn a_unit_changes_sides_at_its_bar(
            seed: u64, keep in 1u32..=1_000_000, uniform: bool, which in 0usize..32,
        ) {
            let shape = crate::test_shape(4, 8);
            let rule = if uniform { Rule::Uniform } else { Rule::Global };
            let (model, kind) = (Fingerprint(Digest::of(b"m")), UnitKind::Expert);
            let budget = Budget { model, shape: &shape, kind, keep: Share(keep), rule, parts: 1 };
            let mut dice = Dice::new(seed, "bars", 0);
            let mut score = || Score { mean: dice.normal(), error: 0.1, effective: 9.0 };
            let mut scores: BTreeMap<Unit, Score> =
                shape.units(kind).map(|unit| (unit, score())).collect();
            let (bars, kept) = (bars(&budget, &scores), build(&budget, &scores));
            for (unit, score) in &scores {
                prop_assert_eq!(kept.contains(unit), score.mean > bars[unit], "{}", unit);
            }
            let (unit, score) = scores.iter().nth(which).map(|(unit, s)| (*unit, *s)).unwrap();
            let is_kept = kept.contains(&unit);
            let moved = if is_kept { bars[&unit].min(score.mean) - 9.0 } else { 9.0 };
            prop_assume!(bars[&unit].is_finite());
            scores.insert(unit, Score { mean: moved, ..score });
            prop_assert_ne!(build(&budget, &scores).contains(&unit), is_kept);
        }
    }
}

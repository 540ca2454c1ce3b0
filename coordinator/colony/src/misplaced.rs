//! How many units stand on the wrong side of the mask's cut.
//!
//! A unit's true effect is taken to be normal about its score, with the score's error; the chance that it lies above
//! what a unit must score to be kept is its chance to belong there. The sum of these chances over the units that are cut
//! is how many of them are expected to be cut wrongly (false negatives); their number is a sum of unlike coin tosses
//! (Poisson binomial; Wang 1993, *Statistica Sinica* 3), which gives the bound. Nothing is decided by it.

use crate::combine::Score;
use crate::mask::{Budget, bars};
use crate::{State, normal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uspx_domain::Unit;

/// What the bound holds with, and how many standard deviations that is.
const SURE: f64 = 0.95;
const SURE_DEVIATIONS: f64 = 1.644_854;
/// A chance that is so near to 0 or 1 is none.
const CERTAIN: f64 = 1e-9;
/// More units in doubt than these are counted by the normal distribution, with its first correction.
const MOST_TOSSES: usize = 2048;

/// Units on the wrong side of the cut.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Misplaced {
    /// Those that are cut, and belong above the cut.
    pub cut: Wrong,
    /// Those that are kept, and belong below.
    pub kept: Wrong,
}

/// Units of one side that belong on the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Wrong {
    /// All units of this side.
    pub units: u32,
    /// How many of them are expected to be wrong.
    pub expected: f64,
    /// Not more than so many are, in 95 of 100 cases.
    pub at_most: u32,
}

impl Wrong {
    /// Of units that are wrong by these chances.
    fn of(chances: &[f64]) -> Self {
        let units = chances.len() as u32;
        Self { units, expected: chances.iter().sum(), at_most: at_most(chances) }
    }
}

impl Misplaced {
    /// Of the mask of the day; none before there is one that rests on exact effects.
    pub fn of(state: &State) -> Option<Self> {
        let kept = Budget::of(state.campaign()?).kept(&state.mask()?.mask);
        let (mut cut_wrongly, mut kept_wrongly) = (Vec::new(), Vec::new());
        for (unit, above) in chances(state)? {
            match kept.contains(&unit) {
                true => kept_wrongly.push(1.0 - above),
                false => cut_wrongly.push(above),
            }
        }
        Some(Self { cut: Wrong::of(&cut_wrongly), kept: Wrong::of(&kept_wrongly) })
    }
}

/// The chance of every unit that its true effect lies above what it must be for the unit to be kept; none before there
/// is a mask that rests on exact effects: cheap scores say nothing of effects' size.
pub fn chances(state: &State) -> Option<BTreeMap<Unit, f64>> {
    let (campaign, drawn) = (state.campaign()?, state.mask()?);
    if !drawn.basis.is_exact() || drawn.scores.is_empty() {
        return None;
    }
    let bars = bars(&Budget::of(campaign), &drawn.scores);
    let chance =
        |(unit, score): (&Unit, &Score)| Some((*unit, above(score, bars.get(unit).copied()?)));
    Some(drawn.scores.iter().filter_map(chance).collect())
}

fn above(score: &Score, bar: f64) -> f64 {
    match score.error > 0.0 {
        true => normal::below((score.mean - bar) / score.error),
        false => f64::from(u8::from(score.mean > bar)),
    }
}

/// The least number that at most so many of independent events happen with [`SURE`].
fn at_most(chances: &[f64]) -> u32 {
    let certain = chances.iter().filter(|p| **p > 1.0 - CERTAIN).count() as u32;
    let open = chances.iter().copied().filter(|p| (CERTAIN..=1.0 - CERTAIN).contains(p));
    let open: Vec<f64> = open.collect();
    certain + if open.len() > MOST_TOSSES { by_moments(&open) } else { by_counts(&open) }
}

/// By the distribution of their number, event by event.
fn by_counts(chances: &[f64]) -> u32 {
    let mut shares = vec![1.0];
    for chance in chances {
        let mut before = 0.0;
        for share in &mut shares {
            let now = *share;
            *share = now * (1.0 - chance) + before * chance;
            before = now;
        }
        shares.push(before * chance);
    }
    let mut sum = 0.0;
    let within = shares.iter().take_while(|share| {
        sum += *share;
        sum < SURE
    });
    within.count() as u32
}

/// By its mean, variance and skewness (Cornish & Fisher 1938).
fn by_moments(chances: &[f64]) -> u32 {
    let sum = |of: fn(f64) -> f64| chances.iter().copied().map(of).sum::<f64>();
    let (mean, variance) = (sum(|p| p), sum(|p| p * (1.0 - p)));
    let third = sum(|p| p * (1.0 - p) * (1.0 - 2.0 * p));
    let skewed = (SURE_DEVIATIONS * SURE_DEVIATIONS - 1.0) / 6.0 * third / variance;
    (mean + SURE_DEVIATIONS * variance.sqrt() + skewed - 0.5).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CampaignConfig, Dice, Founding, MaskVersion, RULES, Record, mask};
    use uspx_domain::{Digest, Fingerprint, UnitKind};

    #[test]
    fn both_ways_to_count_agree_with_tosses() {
        for (seed, scale) in [(1, 0.02), (2, 0.2), (3, 1.0)] {
            let mut dice = Dice::new(seed, "chances", 0);
            let chances: Vec<f64> = (0..400).map(|_| scale * dice.unit()).collect();
            let mut counts: Vec<u32> = (0..4000)
                .map(|_| chances.iter().map(|p| u32::from(dice.unit() < *p)).sum())
                .collect();
            counts.sort_unstable();
            let want = counts[3800];
            let (exact, moments) = (by_counts(&chances), by_moments(&chances));
            assert!(exact.abs_diff(want) <= 1, "{scale}: {exact} {want}");
            assert!(exact.abs_diff(moments) <= 1, "{scale}: {exact} {moments}");
        }
        assert_eq!(at_most(&[1.0, 1.0, 0.0, 0.04]), 2);
        assert_eq!(at_most(&[0.3]), 1);
        assert_eq!(at_most(&[]), 0);
    }

    /// True effects, and what noisy looks at them make of them: the posterior of two normals.
    fn drawn(dice: &mut Dice, units: &[Unit]) -> (Vec<f64>, BTreeMap<Unit, Score>) {
        let mut one = |unit: &Unit| {
            let (truth, noise) = (dice.normal(), 0.1 + dice.unit());
            let own = 1.0 / (1.0 + noise * noise);
            let mean = own * (truth + noise * dice.normal());
            (truth, (*unit, Score { mean, error: noise * own.sqrt(), effective: 9.0 }))
        };
        units.iter().map(&mut one).unzip()
    }

    #[test]
    fn as_many_are_misplaced_as_are_foretold() {
        let model = Fingerprint(Digest::of(b"m"));
        let campaign = CampaignConfig::new("c", (model, crate::test_shape(4, 16)), None, vec![]);
        let mut state = State::default();
        state.fold(&Record::Founded(Box::new(Founding { nonce: [0; 16], rules: RULES, campaign })));
        let campaign = state.campaign().unwrap().clone();
        let (budget, mut dice) = (Budget::of(&campaign), Dice::new(5, "drawn", 0));
        let units: Vec<Unit> = campaign.shape.units(UnitKind::Expert).collect();
        let (mut foretold, mut seen, mut covered) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        let runs = 1000.0;
        for _ in 0..runs as u32 {
            let (truth, scores) = drawn(&mut dice, &units);
            let (kept, bars) = (mask::build(&budget, &scores), bars(&budget, &scores));
            let mask = budget.mask(kept.iter().copied());
            state.mask = Some(MaskVersion { mask, scores, ..MaskVersion::blank() });
            let Misplaced { cut, kept: stay } = Misplaced::of(&state).unwrap();
            let wrong = |of_kept: bool| {
                let above = units.iter().zip(&truth).map(|(unit, t)| (unit, *t > bars[unit]));
                above.filter(|(u, a)| kept.contains(u) == of_kept && *a != of_kept).count() as f64
            };
            for (at, side) in [cut, stay].into_iter().enumerate() {
                assert_eq!(side.units, 32);
                let found = wrong(at == 1);
                foretold[at] += side.expected / runs;
                seen[at] += found / runs;
                covered[at] += f64::from(u8::from(found <= f64::from(side.at_most))) / runs;
            }
        }
        for at in 0..2 {
            assert!((foretold[at] / seen[at] - 1.0).abs() < 0.05, "{foretold:?} {seen:?}");
            assert!((0.94..1.0).contains(&covered[at]), "{covered:?}");
        }
    }

    #[test]
    fn cheap_scores_foretell_nothing() {
        assert_eq!(Misplaced::of(&State::default()), None);
        let none = Score { mean: 0.0, error: 0.0, effective: 0.0 };
        assert_eq!((above(&none, 0.0), above(&none, -1.0)), (0.0, 1.0));
        assert_eq!(above(&none, f64::NEG_INFINITY), 1.0);
    }
}

//! The estimate of a unit from its evaporated sums, and the pheromone that steers where to look
//! next.
//!
//! The pheromone is not the estimate: deposits on effect size lose to uniform sampling, so it marks
//! ambiguity at the mask's cut, within the bounds of a MAX-MIN ant system (Stützle & Hoos 2000).

use crate::MaskVersion;
use crate::combine::Score;
use crate::state::Sums;
use std::collections::BTreeMap;
use uspx_domain::Unit;

/// ρ: how much of the pheromone one deposit replaces.
const RATE: f64 = 0.1;
/// The least pheromone on a unit, so that none is ever forgotten.
const LEAST: f64 = 0.1;
/// The most, so that none takes all.
const MOST: f64 = 4.0;

/// What the evidence says about a unit, per response token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnitEstimate {
    /// Σx / Σt: the pooled effect per token.
    pub mean: f64,
    /// Variance of one prompt's value about that ratio, per mean token squared.
    pub spread: f64,
    /// N²/W: how many prompts' worth of evidence there is.
    pub effective: f64,
}

impl UnitEstimate {
    /// The ratio estimate of `sums`; none without evidence.
    pub fn of(sums: &Sums) -> Option<Self> {
        let [n, w, x, xx, t, tt, xt] =
            [sums.n, sums.w, sums.x, sums.xx, sums.t, sums.tt, sums.xt].map(|s| s.to_f64());
        if n <= 0.0 || w <= 0.0 || t <= 0.0 {
            return None;
        }
        let mean = x / t;
        let residual = (xx - 2.0 * mean * xt + mean * mean * tt) / n;
        let tokens = t / n;
        // Not `max`, which may return either zero.
        let residual = if residual > 0.0 { residual } else { 0.0 };
        Some(Self { mean, spread: residual / (tokens * tokens), effective: n * n / w })
    }

    /// Variance of the mean. A single prompt says nothing of its spread, so its own square stands
    /// in.
    pub fn variance(&self) -> f64 {
        if self.effective > 1.5 {
            self.spread / (self.effective - 1.0)
        } else {
            self.spread + self.mean * self.mean
        }
    }

    /// Standard error of the mean.
    pub fn standard_error(&self) -> f64 {
        self.variance().sqrt()
    }

    /// The interval of `z` standard errors to either side.
    pub fn interval(&self, z: f64) -> (f64, f64) {
        let half = z * self.standard_error();
        (self.mean - half, self.mean + half)
    }
}

/// One deposit: η = n^(−1/2) / (|μ − θ| + ε), τ ← clip((1−ρ)τ + ρ·η/η̄).
pub fn deposit(pheromone: &mut BTreeMap<Unit, f64>, drawn: &MaskVersion) {
    let etas = ambiguity(&drawn.scores, drawn.cut);
    let mean = etas.values().sum::<f64>() / (etas.len().max(1) as f64);
    for (unit, eta) in etas {
        let tau = pheromone.entry(unit).or_insert(1.0);
        *tau = ((1.0 - RATE) * *tau + RATE * eta / mean.max(f64::MIN_POSITIVE)).clamp(LEAST, MOST);
    }
}

/// η of every unit. ε is a twentieth of the mean distance to the cut, so that the scale of scores
/// cancels.
fn ambiguity(scores: &BTreeMap<Unit, Score>, cut: f64) -> BTreeMap<Unit, f64> {
    let away = |score: &Score| (score.mean - cut).abs();
    let mean = scores.values().map(away).sum::<f64>() / (scores.len().max(1) as f64);
    let epsilon = (mean / 20.0).max(1e-12);
    scores
        .iter()
        .map(|(unit, s)| (*unit, 1.0 / (s.effective.max(1.0).sqrt() * (away(s) + epsilon))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_the_ratio_with_its_error() {
        let mut sums = Sums::default();
        for (x, t) in [(1.0, 10), (2.0, 10), (3.0, 10), (2.0, 10)] {
            sums.observe(x, t);
        }
        let estimate = UnitEstimate::of(&sums).unwrap();
        assert!((estimate.mean - 0.2).abs() < 1e-9);
        assert!((estimate.effective - 4.0).abs() < 1e-9);
        // Sample variance 2/3 over 4 prompts, per 10 tokens.
        assert!((estimate.standard_error() - (2.0f64 / 3.0 / 4.0).sqrt() / 10.0).abs() < 1e-6);
        assert_eq!(UnitEstimate::of(&Sums::default()), None);
    }

    #[test]
    fn pheromone_gathers_at_the_cut_within_its_bounds() {
        let unit = |index| Unit { kind: uspx_domain::UnitKind::Expert, layer: 0, index };
        let scores: BTreeMap<_, _> = (0..10)
            .map(|i| (unit(i), Score { mean: f64::from(i), error: 0.1, effective: 9.0 }))
            .collect();
        let drawn = MaskVersion { cut: 4.5, scores, ..MaskVersion::blank() };
        let mut pheromone = BTreeMap::new();
        for _ in 0..200 {
            deposit(&mut pheromone, &drawn);
        }
        assert!(pheromone[&unit(4)] > pheromone[&unit(0)]);
        assert!(pheromone.values().all(|t| (LEAST..=MOST).contains(t)), "{pheromone:?}");
    }
}

//! Masks searched as sets. Scores of single units cannot see what goes *together*: of two experts
//! that stand in for each other either may go, not both. So whole masks near the best one known are
//! tried, and what their losses say is credited to the units that each of them cuts.
//!
//! The rise of the loss under a mask is taken to be Σ w over the units that it cuts, and noise. The
//! weights are Gaussian; before any trial their means are what cheap scores say (the sizes of one
//! score in the order of all of them, scaled to what the first mask costs), and every trial corrects
//! them (Bayesian linear regression). How far a trial is to be trusted, its prompts say: how far its
//! loss, beside the mean of all trials' on the same prompt, goes up and down from prompt to prompt.
//! Masks are drawn by ranking the units by their mean weight, with
//! noise that shrinks from round to round, as in the cross-entropy method (Rubinstein 1999). What is
//! chosen is the tried mask whose loss, drawn towards what the model expects of it, is the least:
//! the luckiest of many noisy losses would be too good to be true.

use super::noise::variances;
use super::ranks::mean_ranks;
use super::{Budget, build};
use crate::Dice;
use crate::combine::{Score, solve};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Mask, Unit};

/// Spread of the noise that the first round's ranks (from 0 to 1) are drawn with.
const WIDTH: f64 = 0.1;
/// What it shrinks by from round to round.
const NARROWING: f64 = 0.7;
/// How far a weight may be from its mean beforehand: as much as the weight at the cut, and this part
/// of its own.
const DOUBT: f64 = 0.5;
/// Deviation of a loss that no prompt accounts for, in nats per token.
const NOISE: f64 = 1e-3;
/// Variance of the intercept beforehand: nothing is known of it.
const INTERCEPT: f64 = 1.0;

/// A search for the mask that costs least at a budget.
#[derive(Debug)]
pub struct Search<'a> {
    budget: Budget<'a>,
    /// Of each prompt that masks are tried on, its response tokens.
    tokens: Vec<f64>,
    /// Beforehand: means, until the first trial in the unit of the first score.
    beforehand: BTreeMap<Unit, f64>,
    /// As far as is known: the mean weight of every unit.
    weights: BTreeMap<Unit, f64>,
    trials: Vec<Trial>,
    rounds: u32,
}

/// A mask that was tried.
#[derive(Debug)]
struct Trial {
    kept: BTreeSet<Unit>,
    /// Of each prompt, in nats summed over its tokens.
    nats: Vec<f64>,
    /// Of all of them, in nats per token.
    rise: f64,
    /// Variance of the rise.
    noise: f64,
    /// The rise, drawn towards what is expected of the mask.
    steadied: f64,
}

impl<'a> Search<'a> {
    /// Begins from cheap scores, each larger for what matters more. The first of them gives the
    /// sizes of the weights. `tokens` holds the response tokens of each prompt that masks are tried
    /// on.
    pub fn new(budget: Budget<'a>, scores: &[BTreeMap<Unit, f64>], tokens: &[u32]) -> Self {
        let ranks = mean_ranks(scores);
        let mut sizes: Vec<f64> =
            scores.first().map(|first| first.values().copied().collect()).unwrap_or_default();
        sizes.sort_by(f64::total_cmp);
        let mut order: Vec<Unit> = ranks.keys().copied().collect();
        let rank = |unit: &Unit| ranks.get(unit).copied().unwrap_or(0.0);
        order.sort_by(|a, b| rank(a).total_cmp(&rank(b)).then(b.cmp(a)));
        let size = |size: f64| if size > 0.0 { size } else { 0.0 };
        let beforehand: BTreeMap<Unit, f64> =
            order.into_iter().zip(sizes.into_iter().map(size)).collect();
        let tokens = tokens.iter().copied().map(f64::from).collect();
        let (weights, trials) = (beforehand.clone(), Vec::new());
        Self { budget, tokens, weights, beforehand, trials, rounds: 0 }
    }

    /// The next masks to try, at most `count`, none of them tried before: the best that is expected,
    /// and others near it.
    pub fn next(&mut self, dice: &mut Dice, count: usize) -> Vec<Mask> {
        let mut width = WIDTH;
        (1..self.rounds).for_each(|_| width *= NARROWING);
        self.rounds += 1;
        let ranks = mean_ranks(std::slice::from_ref(&self.weights));
        let mut found: Vec<BTreeSet<Unit>> = Vec::new();
        // Where few masks are left that are new, some draws are in vain.
        for draw in 0..4 * count {
            let mut moved = |(unit, rank): (&Unit, &f64)| {
                let noise = if draw == 0 { 0.0 } else { width * dice.normal() };
                (*unit, Score { mean: rank + noise, error: 0.0, effective: 1.0 })
            };
            let scores = ranks.iter().map(&mut moved).collect();
            let kept = build(&self.budget, &scores);
            let known = self.trials.iter().any(|trial| trial.kept == kept);
            if !known && !found.contains(&kept) {
                found.push(kept);
            }
            if found.len() >= count || self.rounds == 1 {
                break;
            }
        }
        found.into_iter().map(|kept| self.budget.mask(kept)).collect()
    }

    /// Takes in by how much masks raise the loss of each prompt, in nats summed over its tokens.
    pub fn learn(&mut self, tried: impl IntoIterator<Item = (Mask, Vec<f64>)>) {
        for (mask, nats) in tried {
            let kept = self.budget.kept(&mask);
            let rise = nats.iter().sum::<f64>() / self.tokens.iter().sum::<f64>().max(1.0);
            if self.trials.is_empty() {
                self.scale(&kept, rise);
            }
            self.trials.push(Trial { kept, nats, rise, noise: 0.0, steadied: rise });
        }
        self.doubt();
        self.update();
    }

    /// The best mask tried.
    pub fn best(&self) -> Option<Mask> {
        let best = self.trials.iter().min_by(|a, b| a.steadied.total_cmp(&b.steadied))?;
        Some(self.budget.mask(best.kept.iter().copied()))
    }

    /// Brings the means to the scale of losses, by the first mask's; one that costs nothing is taken to
    /// cost as much as noise does.
    fn scale(&mut self, kept: &BTreeSet<Unit>, rise: f64) {
        let cut = self.expected(kept);
        let rise = if rise > NOISE { rise } else { NOISE };
        if cut > 0.0 {
            self.beforehand.values_mut().for_each(|weight| *weight *= rise / cut);
        }
    }

    /// The weights after all trials: with A the trials' cuts (and an intercept), P the variances
    /// beforehand and Σ those of the losses, μ + P·Aᵀ·(A·P·Aᵀ + Σ)⁻¹·(losses − A·μ).
    fn update(&mut self) {
        let expected: Vec<f64> = self.trials.iter().map(|t| self.expected(&t.kept)).collect();
        let variance = self.beforehand_variances();
        let row = |(at, trial): (usize, &Trial)| {
            let covariance = |(to, other): (usize, &Trial)| {
                let both = |(unit, _): &(&Unit, &f64)| {
                    !trial.kept.contains(unit) && !other.kept.contains(unit)
                };
                let shared: f64 = variance.iter().filter(both).map(|(_, v)| v).sum();
                shared + INTERCEPT + if at == to { trial.noise } else { 0.0 }
            };
            let mut row: Vec<f64> = self.trials.iter().enumerate().map(covariance).collect();
            row.push(trial.rise - expected.get(at).copied().unwrap_or(0.0));
            row
        };
        let pulls = solve(self.trials.iter().enumerate().map(row).collect());
        for (trial, pull) in self.trials.iter_mut().zip(&pulls) {
            trial.steadied = trial.rise - trial.noise * pull;
        }
        let weight = |(unit, mean): (&Unit, &f64)| {
            let cut_by = self.trials.iter().zip(&pulls).filter(|(t, _)| !t.kept.contains(unit));
            let pull: f64 = cut_by.map(|(_, pull)| pull).sum();
            (*unit, mean + variance.get(unit).copied().unwrap_or(0.0) * pull)
        };
        self.weights = self.beforehand.iter().map(weight).collect();
    }

    /// What is expected beforehand of a mask.
    fn expected(&self, kept: &BTreeSet<Unit>) -> f64 {
        self.beforehand.iter().filter(|(unit, _)| !kept.contains(unit)).map(|(_, w)| w).sum()
    }

    /// Of the weights, before any trial.
    fn beforehand_variances(&self) -> BTreeMap<Unit, f64> {
        let mut sizes: Vec<f64> = self.beforehand.values().copied().collect();
        sizes.sort_by(f64::total_cmp);
        let gone = sizes.len().saturating_sub(self.budget.count());
        let at_the_cut = sizes.get(gone).copied().unwrap_or(0.0);
        let variance = |(unit, weight): (&Unit, &f64)| {
            let deviation = at_the_cut + DOUBT * weight;
            (*unit, deviation * deviation)
        };
        self.beforehand.iter().map(variance).collect()
    }

    /// How far each trial's rise is to be doubted.
    fn doubt(&mut self) {
        let rises: Vec<&[f64]> = self.trials.iter().map(|t| t.nats.as_slice()).collect();
        let noise = variances(&rises, &self.tokens);
        for (trial, variance) in self.trials.iter_mut().zip(noise) {
            trial.noise = variance + NOISE * NOISE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rule, Share, test_shape};
    use uspx_domain::{Digest, Fingerprint, ModelShape, UnitKind};

    fn budget(shape: &ModelShape, rule: Rule) -> Budget<'_> {
        let model = Fingerprint(Digest::of(b"m"));
        Budget { model, shape, kind: UnitKind::Expert, keep: Share::nearest(0.5), rule, parts: 1 }
    }

    /// Single scores are noisy, and of two neighbours one may go, at a price both.
    fn rise(budget: &Budget<'_>, mask: &Mask, weight: &BTreeMap<Unit, f64>) -> f64 {
        let gone = |u: &Unit| !mask.keeps(*u);
        let units = || budget.shape.units(budget.kind);
        let single: f64 = units().filter(gone).map(|u| weight[&u]).sum();
        let twin = |u: &Unit| Unit { index: u.index ^ 1, ..*u };
        let pairs = units().filter(|u| gone(u) && gone(&twin(u))).count();
        single + 0.05 * pairs as f64
    }

    fn searched(rule: Rule, seed: u64, rounds: usize) -> (f64, f64, usize) {
        let shape = test_shape(4, 16);
        let budget = budget(&shape, rule);
        let mut dice = Dice::new(seed, "search", 0);
        let weight: BTreeMap<Unit, f64> =
            shape.units(UnitKind::Expert).map(|u| (u, dice.unit() * 0.02)).collect();
        let noisy = |dice: &mut Dice| {
            weight.iter().map(|(u, w)| (*u, w * 30.0 + 0.1 * dice.normal())).collect()
        };
        let scores = [noisy(&mut dice), noisy(&mut dice)];
        let mut search = Search::new(budget, &scores, &[1]);
        let (mut first, mut count) = (None, 0);
        for _ in 0..rounds {
            let masks = search.next(&mut dice, 16);
            count += masks.len();
            let rises = masks.iter().map(|mask| rise(&budget, mask, &weight));
            let tried: Vec<(Mask, Vec<f64>)> =
                masks.iter().cloned().zip(rises.map(|rise| vec![rise])).collect();
            first = first.or_else(|| tried.first().map(|(_, rise)| rise[0]));
            search.learn(tried);
        }
        let best = search.best().unwrap();
        assert!(budget.allows(&budget.kept(&best)));
        (first.unwrap(), rise(&budget, &best, &weight), count)
    }

    #[test]
    fn it_finds_what_single_scores_cannot_say() {
        for rule in [Rule::Global, Rule::Uniform] {
            for seed in 0..4 {
                let (start, found, count) = searched(rule, seed, 5);
                let most = 1 + 4 * 16;
                assert!((most / 2..=most).contains(&count), "{count} of {most} masks tried");
                assert!(found < 0.85 * start, "{rule:?} {seed}: {found} from {start}");
            }
        }
    }

    #[test]
    fn without_a_trial_more_the_scores_mask_stands() {
        let (start, found, count) = searched(Rule::Global, 1, 1);
        assert_eq!((start, count), (found, 1));
    }

    /// Then there is nothing to win, and what was begun with stays unless noise alone speaks against
    /// it.
    #[test]
    fn a_first_mask_that_costs_nothing_is_not_left_for_a_dearer_one() {
        let shape = test_shape(2, 16);
        let budget = budget(&shape, Rule::Global);
        let scores = shape.units(UnitKind::Expert).map(|u| (u, f64::from(u.index))).collect();
        let mut search = Search::new(budget, &[scores], &[1]);
        let mut dice = Dice::new(5, "free", 0);
        let mut first = None;
        for _ in 0..4 {
            let masks = search.next(&mut dice, 16);
            first = first.or_else(|| masks.first().cloned());
            let dear = |mask: &Mask| if Some(mask) == first.as_ref() { -1e-4 } else { 0.05 };
            search.learn(masks.iter().map(|mask| (mask.clone(), vec![dear(mask)])));
        }
        assert_eq!(search.best(), first);
    }

    /// Two masks of which the second costs a little less on average: it is the better one where it
    /// does on every prompt, and not where that is luck on one of them.
    #[test]
    fn what_single_prompts_say_decides_how_far_a_loss_is_trusted() {
        let shape = test_shape(1, 8);
        let budget = budget(&shape, Rule::Global);
        let chosen = |second: [f64; 4]| {
            let scores = shape.units(UnitKind::Expert).map(|u| (u, f64::from(u.index))).collect();
            let mut search = Search::new(budget, &[scores], &[1; 4]);
            let mut dice = Dice::new(2, "trust", 0);
            let first = search.next(&mut dice, 1).remove(0);
            search.learn([(first.clone(), vec![0.5; 4])]);
            let other = search.next(&mut dice, 2).remove(0);
            assert_ne!(budget.kept(&first), budget.kept(&other));
            search.learn([(other, second.to_vec())]);
            search.best().unwrap() == first
        };
        assert!(!chosen([0.45; 4]));
        assert!(chosen([2.5, 2.0, 1.8, -4.5]));
    }

    #[test]
    fn masks_are_new_and_end_where_none_is_left() {
        let shape = test_shape(1, 4);
        let budget = budget(&shape, Rule::Global);
        let scores = shape.units(UnitKind::Expert).map(|u| (u, f64::from(u.index))).collect();
        let mut search = Search::new(budget, &[scores], &[1]);
        let (mut dice, mut seen) = (Dice::new(1, "few", 0), BTreeSet::new());
        for _ in 0..20 {
            let masks = search.next(&mut dice, 8);
            for mask in &masks {
                assert!(seen.insert(budget.kept(mask)), "tried twice");
            }
            search.learn(masks.into_iter().map(|mask| (mask, vec![0.0])));
        }
        assert!((2..=6).contains(&seen.len()), "of six masks {}", seen.len());
    }
}

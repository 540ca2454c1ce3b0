//! Ants: whole masks near the current one. Their losses see what single-unit effects cannot,
//! redundant pairs above all.

use super::Budget;
use crate::state::Trial;
use crate::{CampaignConfig, Dice, State, TrialRole};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Mask, Unit};

/// Most swaps between a candidate and the current mask.
const SWAPS: u32 = 3;

/// Up to `count` masks, each a few swaps from `mask`, the units drawn by pheromone (ambiguity at
/// the cut).
pub fn near(
    dice: &mut Dice,
    budget: &Budget<'_>,
    mask: &Mask,
    pheromone: &BTreeMap<Unit, f64>,
    count: u32,
) -> Vec<Mask> {
    let kept = budget.kept(mask);
    let (inside, outside): (Vec<Unit>, Vec<Unit>) =
        budget.shape.units(budget.kind).partition(|u| kept.contains(u));
    let mut found: Vec<Mask> = Vec::new();
    for _ in 0..count {
        let swaps = 1 + dice.below(SWAPS) as usize;
        let leaving = drawn(dice, &inside, pheromone, swaps);
        let entering = drawn(dice, &outside, pheromone, swaps);
        let mut next = kept.clone();
        next.retain(|u| !leaving.contains(u));
        next.extend(entering);
        let candidate = budget.mask(next.iter().copied());
        if budget.allows(&next) && candidate != *mask && !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

fn drawn(
    dice: &mut Dice,
    units: &[Unit],
    pheromone: &BTreeMap<Unit, f64>,
    count: usize,
) -> BTreeSet<Unit> {
    let weights: Vec<f64> =
        units.iter().map(|u| pheromone.get(u).copied().unwrap_or(1.0)).collect();
    dice.draw(&weights, count).into_iter().filter_map(|at| units.get(at).copied()).collect()
}

/// The best candidate of the round that just closed, if it beats the current mask on the same
/// prompts by the campaign's number of standard errors. Hysteresis then keeps its swaps for as long
/// as single-unit evidence does not speak against.
pub fn adopt(state: &State, budget: &Budget<'_>) -> Option<BTreeSet<Unit>> {
    let campaign = state.campaign.as_ref()?;
    let current = &state.mask.as_ref()?.mask;
    let trials = &state.results.trials;
    let beats = |(role, trial): (&TrialRole, &Trial)| {
        let TrialRole::Candidate(round, _) = role else { return None };
        let beside = trials.get(&TrialRole::Current(*round)).filter(|t| t.mask == *current)?;
        let rise = advantage(beside, trial, campaign)?;
        Some((rise, budget.kept(&trial.mask)))
    };
    let best = trials.iter().filter_map(beats).min_by(|a, b| a.0.total_cmp(&b.0))?;
    budget.allows(&best.1).then_some(best.1)
}

/// Loss of the candidate less that of the current mask, nats per token, where it is surely below 0.
fn advantage(current: &Trial, candidate: &Trial, campaign: &CampaignConfig) -> Option<f64> {
    let pairs: Vec<(f64, f64)> = candidate
        .pairs
        .iter()
        .filter_map(|(at, pair)| {
            current.pairs.get(at).map(|c| ((pair.cut - c.cut).to_f64(), f64::from(pair.tokens)))
        })
        .collect();
    let n = pairs.len() as f64;
    let tokens: f64 = pairs.iter().map(|(_, t)| t).sum();
    if n < 2.0 || tokens <= 0.0 {
        return None;
    }
    let rise = pairs.iter().map(|(d, _)| d).sum::<f64>() / tokens;
    let spread =
        pairs.iter().map(|(d, t)| (d - rise * t) * (d - rise * t)).sum::<f64>() / (n - 1.0);
    let error = (spread * n).sqrt() / tokens;
    (rise + campaign.probe.candidate_errors * error < 0.0).then_some(rise)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Pair;
    use crate::{Fixed, MaskVersion, PromptEntry, Split};
    use uspx_domain::{Digest, Fingerprint, UnitKind};

    fn state() -> State {
        let shape = crate::test_shape(2, 8);
        let model = Fingerprint(Digest::of(b"m"));
        let entry = |i: u32| {
            let (id, digest) = (i.to_string(), Digest::of(&i.to_le_bytes()));
            PromptEntry { id, digest, split: Split::Train, tags: vec![], generation: 0 }
        };
        let prompts = (0..20).map(entry).collect();
        let campaign = CampaignConfig::new("c", (model, shape), model, prompts);
        let budget = Budget::of(&campaign);
        let kept = budget.shape.units(UnitKind::Expert).filter(|u| u.index < 4);
        let mask = budget.mask(kept);
        State {
            campaign: Some(campaign),
            mask: Some(MaskVersion { mask, ..MaskVersion::blank() }),
            ..State::default()
        }
    }

    /// A trial whose loss lies `rise` nats per token above the clean one, give or take.
    fn trial(mask: &Mask, rise: f64, noise: f64) -> Trial {
        let mut dice = Dice::new(3, "trial", 0);
        let mut pair = || Pair {
            clean: Fixed::of(20.0),
            cut: Fixed::of(20.0 + 10.0 * (rise + noise * dice.normal())),
            tokens: 10,
        };
        Trial { mask: mask.clone(), pairs: (0..20).map(|at| (at, pair())).collect() }
    }

    #[test]
    fn candidates_keep_the_budget_and_differ_a_little() {
        let state = state();
        let budget = Budget::of(state.campaign.as_ref().unwrap());
        let current = &state.mask.as_ref().unwrap().mask;
        let found = near(&mut Dice::new(1, "near", 0), &budget, current, &BTreeMap::new(), 20);
        assert!(found.len() > 5);
        for mask in found {
            let (old, new) = (budget.kept(current), budget.kept(&mask));
            assert!(budget.allows(&new));
            assert!((1..=SWAPS as usize).contains(&old.difference(&new).count()));
        }
    }

    #[test]
    fn only_a_candidate_that_surely_beats_the_current_mask_is_taken() {
        let mut state = state();
        let budget = Budget::of(state.campaign.as_ref().unwrap());
        let current = state.mask.as_ref().unwrap().mask.clone();
        let other =
            near(&mut Dice::new(1, "near", 0), &budget, &current, &BTreeMap::new(), 1).remove(0);
        state.results.trials.insert(TrialRole::Current(1), trial(&current, 0.5, 0.0));
        state.results.trials.insert(TrialRole::Candidate(1, 0), trial(&other, 0.49, 0.5));
        assert_eq!(adopt(&state, &budget), None, "within its error");
        state.results.trials.insert(TrialRole::Candidate(1, 1), trial(&other, 0.3, 0.05));
        assert_eq!(adopt(&state, &budget), Some(budget.kept(&other)));
        state.results.trials.insert(TrialRole::Current(1), trial(&other, 0.5, 0.0));
        assert_eq!(adopt(&state, &budget), None, "beside a mask that is no longer the current one");
    }
}

//! What another drawing of the prompts would say: how alike the masks of two runs on other prompts of the same kind
//! would be.
//!
//! The overlap with the version before says how steady one run is; errors of scores say how sure each score is, if their
//! model holds. Neither says what a second run would find. This does: every prompt is counted anew, 0, 1, 2, .. times
//! (the Poisson bootstrap: Chamandy et al. 2012), in [`REPLICATES`] replicates, and units are scored in each as they are
//! for the mask, by what is known of single prompts ([`ByPrompt`](crate::state::ByPrompt)). Whole prompts are drawn, so
//! whatever a prompt says of all units and statistics stays together.
//!
//! Nothing is decided by it, and nothing of it is kept: it is made where somebody wants to see it. What is not in it:
//! that a second run would also choose other prompts for exact runs, that evidence evaporates, and that the mask of the
//! day clings to the one before (`mask::settle`). Kinds of unit whose deposits hold moments have no values per prompt,
//! and no such figure.

use crate::combine::{Score, score};
use crate::controlled::{Parts, Say, parts_of};
use crate::mask::{Budget, build, jaccard};
use crate::mix::strata;
use crate::{CampaignConfig, Dice, State};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::Unit;

/// Replicates: their neighbours make as many pairs.
pub const REPLICATES: usize = 24;

/// How often each replicate counts a prompt.
type Counts = [u8; REPLICATES];

/// Units' scores by the evidence drawn anew, [`REPLICATES`] times.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampled {
    /// On all prompts.
    scores: Vec<BTreeMap<Unit, Score>>,
    /// Effects, stratum by stratum, where prompts are of several ages and scores rest on exact effects beside cheap ones;
    /// else empty.
    effects: Vec<Parts>,
}

impl Resampled {
    /// Of what is known; none before there is evidence prompt by prompt.
    pub fn of(state: &State) -> Option<Self> {
        let campaign = state.campaign().filter(|_| !state.by_prompt().is_empty())?;
        let drawn = Drawn::of(campaign);
        let led = campaign.mind.leads().then(|| drawn.parts(state, Say::Typical)).flatten();
        let Some(parts) = led else {
            return Some(Self { scores: drawn.plain(state, campaign)?, effects: Vec::new() });
        };
        let of_ages = (strata(state).len() > 1).then(|| drawn.parts(state, Say::Whole)).flatten();
        let scores = parts.iter().map(Parts::wholes).collect();
        Some(Self { scores, effects: of_ages.unwrap_or_default() })
    }

    /// The mean overlap of two runs' masks.
    pub fn overlap(&self, campaign: &CampaignConfig) -> f64 {
        let budget = Budget::of(campaign);
        let masks: Vec<BTreeSet<Unit>> =
            self.scores.iter().map(|scores| build(&budget, scores)).collect();
        let next = masks.iter().cycle().skip(1);
        let overlaps: f64 = masks.iter().zip(next).map(|(a, b)| jaccard(a, b)).sum();
        overlaps / masks.len() as f64
    }

    /// The effects that each replicate tells of every stratum.
    pub(crate) fn effects(&self) -> &[Parts] {
        &self.effects
    }
}

/// How often each prompt counts, by place.
struct Drawn(Vec<Counts>);

impl Drawn {
    fn of(campaign: &CampaignConfig) -> Self {
        Self(campaign.prompts.iter().map(|prompt| counts(campaign.seed, &prompt.id)).collect())
    }

    fn times(&self, replicate: usize, at: u32) -> u32 {
        let counts = self.0.get(at as usize).and_then(|counts| counts.get(replicate));
        counts.map_or(1, |count| u32::from(*count))
    }

    fn parts(&self, state: &State, say: Say) -> Option<Vec<Parts>> {
        let one = |replicate| parts_of(state, say, |at| self.times(replicate, at));
        (0..REPLICATES).map(one).collect()
    }

    /// Scores without cheap ones as controls, as a mask has them where those are not known.
    fn plain(
        &self,
        state: &State,
        campaign: &CampaignConfig,
    ) -> Option<Vec<BTreeMap<Unit, Score>>> {
        let one = |replicate| {
            let trails = state.by_prompt().trails(|at| self.times(replicate, at));
            Some(score(&trails, &campaign.shape, campaign.mask.kind)?.scores)
        };
        (0..REPLICATES).map(one).collect()
    }
}

/// How often each replicate counts a prompt: Poisson with mean 1, the same wherever the prompt is
/// met.
fn counts(seed: u64, id: &str) -> Counts {
    let mut dice = Dice::new(seed, &format!("resample {id}"), 0);
    std::array::from_fn(|_| poisson(dice.unit()))
}

/// The smallest count whose distribution function exceeds `u`.
fn poisson(u: f64) -> u8 {
    let (mut count, mut term) = (0u8, 1.0 / std::f64::consts::E);
    let mut sum = term;
    while u >= sum && count < 12 {
        count += 1;
        term /= f64::from(count);
        sum += term;
    }
    count
}

/// How alike masks are, by what is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// Overlap with the version before: how steady this run is. None of a first version.
    pub version_before: Option<f64>,
    /// Expected overlap of the masks of two runs on other prompts of the same kind.
    pub two_runs: Option<f64>,
}

impl Stability {
    /// Of the mask of the day, with its evidence drawn anew.
    pub fn of(state: &State, resampled: Option<&Resampled>) -> Option<Self> {
        let (campaign, version_before) = (state.campaign()?, state.mask()?.jaccard);
        Some(Self { version_before, two_runs: resampled.map(|drawn| drawn.overlap(campaign)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_poisson_and_belong_to_the_prompt() {
        let all: Vec<u8> = (0..500).flat_map(|i| counts(4, &i.to_string())).collect();
        let share = |n: u8| all.iter().filter(|c| **c == n).count() as f64 / all.len() as f64;
        let e = 1.0 / std::f64::consts::E;
        for (n, want) in [(0, e), (1, e), (2, e / 2.0), (3, e / 6.0)] {
            assert!((share(n) - want).abs() < 0.01, "{n}: {}", share(n));
        }
        assert_eq!(counts(4, "7"), counts(4, "7"));
        assert_ne!(counts(4, "7"), counts(4, "8"));
    }
}

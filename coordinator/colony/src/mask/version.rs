//! The mask of the day: drawn anew after each probing epoch, with what it rests on and how steady
//! it is.

use super::{Budget, adopt, build, settle};
use crate::combine::{Basis, Score, Scored, score};
use crate::{CampaignConfig, Decision, Dice, Stage, State, controlled};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Mask, Unit};

/// One version of the mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaskVersion {
    /// Its number, from 1.
    pub version: u32,
    /// The epoch whose close it was drawn at.
    pub epoch: u32,
    /// The mask.
    pub mask: Mask,
    /// What scores rest on.
    pub basis: Basis,
    /// θ: the score at the budget's cut, in the scores' unit.
    pub cut: f64,
    /// Score of every unit.
    pub scores: BTreeMap<Unit, Score>,
    /// Share of bootstrap masks that agree with this one about the unit.
    pub confidence: BTreeMap<Unit, f64>,
    /// Overlap with the version before, if there is one.
    pub jaccard: Option<f64>,
    /// Mean overlap with masks drawn from the scores' errors.
    pub bootstrap_jaccard: f64,
}

impl MaskVersion {
    /// The cut as people read it ([`Basis::told`]).
    pub fn told_cut(&self) -> f64 {
        self.basis.told(self.cut)
    }

    #[cfg(test)]
    pub(crate) fn blank() -> Self {
        Self {
            version: 1,
            epoch: 1,
            mask: Mask::everything(uspx_domain::Fingerprint(uspx_domain::Digest::of(b"m"))),
            basis: Basis::Exact,
            cut: 0.0,
            scores: BTreeMap::new(),
            confidence: BTreeMap::new(),
            jaccard: None,
            bootstrap_jaccard: 1.0,
        }
    }
}

/// Overlap of two sets: shared over all; 1 where both are empty.
pub fn jaccard(a: &BTreeSet<Unit>, b: &BTreeSet<Unit>) -> f64 {
    let shared = a.intersection(b).count();
    let all = a.len() + b.len() - shared;
    if all == 0 { 1.0 } else { shared as f64 / all as f64 }
}

/// Draws the next version from the evidence; none where there is no evidence or no campaign.
pub fn redraw(state: &State) -> Option<MaskVersion> {
    let campaign = state.campaign.as_ref()?;
    let budget = Budget::of(campaign);
    let led = campaign.mind.leads().then(|| controlled::score(state)).flatten();
    let plain = || score(&state.trails, &campaign.shape, campaign.mask.kind);
    let Scored { basis, scores } = led.or_else(plain)?;
    let ideal = build(&budget, &scores);
    let cut = cut(&scores, &ideal);
    let before = state.mask.as_ref().map(|old| budget.kept(&old.mask));
    // Scores of another basis have another scale: intervals of the two cannot be compared, so
    // nothing is held back.
    let held = state
        .mask
        .as_ref()
        .filter(|old| old.basis == basis && !is_learning(state))
        .and(before.as_ref())
        .filter(|b| budget.allows(b));
    let kept = match held {
        Some(before) => {
            let start = adopt(state, &budget).unwrap_or_else(|| before.clone());
            settle(&budget, &scores, &start, &ideal, (cut, campaign.mask.hysteresis))
        }
        None => ideal,
    };
    let (confidence, bootstrap_jaccard) =
        bootstrap(campaign, &budget, (state.epoch, &scores, &kept));
    Some(MaskVersion {
        version: state.mask.as_ref().map_or(1, |old| old.version + 1),
        epoch: state.epoch,
        mask: budget.mask(kept.iter().copied()),
        basis,
        cut,
        scores,
        confidence,
        jaccard: before.as_ref().map(|b| jaccard(b, &kept)),
        bootstrap_jaccard,
    })
}

/// Whether the prompts are explored for the first time: then a version rests on all of what those before it did, and
/// more, and nothing is held back.
fn is_learning(state: &State) -> bool {
    let Some(campaign) = state.campaign.as_ref().filter(|c| c.mind.leads()) else { return false };
    let is_first = campaign.live().all(|(_, prompt)| prompt.generation == 0);
    is_first && state.stage == Some(Stage::Explore)
}

/// The version that a closing record decided, with the scores of what today's rules draw.
pub fn as_recorded(
    state: &State,
    today: Option<MaskVersion>,
    recorded: &Decision,
) -> Option<MaskVersion> {
    let campaign = state.campaign.as_ref()?;
    let budget = Budget::of(campaign);
    let old = state.mask.as_ref();
    let (before, kept) = (old.map(|old| budget.kept(&old.mask)), budget.kept(&recorded.mask));
    let (mask, cut) = (recorded.mask.clone(), recorded.cut);
    let jaccard = before.map(|b| jaccard(&b, &kept));
    let version = old.map_or(1, |old| old.version + 1);
    let blank = || MaskVersion {
        version,
        epoch: state.epoch,
        mask: mask.clone(),
        basis: Basis::Exact,
        cut,
        scores: BTreeMap::new(),
        confidence: BTreeMap::new(),
        jaccard,
        bootstrap_jaccard: 0.0,
    };
    Some(MaskVersion { version, mask: mask.clone(), cut, jaccard, ..today.unwrap_or_else(blank) })
}

/// θ: halfway between the lowest score above the cut and the highest below, as if no layer had a
/// floor.
fn cut(scores: &BTreeMap<Unit, Score>, kept: &BTreeSet<Unit>) -> f64 {
    let mut means: Vec<f64> = scores.values().map(|s| s.mean).collect();
    means.sort_by(|a, b| b.total_cmp(a));
    let above = kept.len().checked_sub(1).and_then(|at| means.get(at)).copied();
    let below = means.get(kept.len()).copied();
    match (above, below) {
        (Some(a), Some(b)) => (a + b) / 2.0,
        (a, b) => a.or(b).unwrap_or(0.0),
    }
}

/// Masks from scores redrawn within their errors: how often each unit is on this mask's side, and
/// the mean overlap.
fn bootstrap(
    campaign: &CampaignConfig,
    budget: &Budget<'_>,
    (epoch, scores, kept): (u32, &BTreeMap<Unit, Score>, &BTreeSet<Unit>),
) -> (BTreeMap<Unit, f64>, f64) {
    let mut dice = Dice::new(campaign.seed, "bootstrap", u64::from(epoch));
    let draws = campaign.mask.bootstrap.max(1);
    let mut agreed: BTreeMap<Unit, u32> = scores.keys().map(|u| (*u, 0)).collect();
    let mut overlap = 0.0;
    for _ in 0..draws {
        let mut redrawn = |s: &Score| Score { mean: s.mean + s.error * dice.normal(), ..*s };
        let other = build(budget, &scores.iter().map(|(u, s)| (*u, redrawn(s))).collect());
        overlap += jaccard(&other, kept);
        agreed.iter_mut().for_each(|(u, n)| *n += u32::from(other.contains(u) == kept.contains(u)));
    }
    let share = |n: u32| f64::from(n) / f64::from(draws);
    (agreed.into_iter().map(|(u, n)| (u, share(n))).collect(), overlap / f64::from(draws))
}

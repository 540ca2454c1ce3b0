//! Proposes rounds of exact expert ablations, each where it tells most.
//!
//! Prompts come in strata ([`mix`](crate::mix)), each with its share of the budget. What comes first tries every unit on
//! the same few prompts of a stratum. Each later round spends its pairs where [`worth`] says that they lessen the
//! expected loss of deciding wrongly most: on units near the cut of which little is known, on prompts of the stratum
//! that adds most to the doubt. Units go through a stratum's prompts in one fixed order, each prompt once; those come first
//! whose cheap scores are known, which effects are corrected by. Tasks hold the units that have the same prompts ahead.
//! Recorded effects of the shipped teacher, a tenth of all pairs: masks of a quarter of the experts cost .006 nats per
//! token more than the best one by these rounds, .08 by as many pairs on all units alike.

use super::View;
use super::view::Piece;
use crate::combine::Score;
use crate::controlled::{Parts, Say, parts};
use crate::mix::{Stratum, strata};
use crate::worth::worth;
use std::collections::BTreeMap;
use uspx_domain::Unit;

/// Prompts that a unit gets at once: those of one task cost it a run of the whole model.
const AT_ONCE: usize = 8;

/// Units by the prompts that they are to be tried on.
type Stretches = BTreeMap<Vec<u32>, Vec<Unit>>;

impl View<'_> {
    /// Exact runs that a budget leaves to be asked for: what a stratum got beyond its share leaves another's untouched, and
    /// what was spent on prompts that are gone does not count.
    pub(super) fn exact_left(&self, budget: u64) -> u64 {
        strata(self.state).iter().map(|stratum| self.left_of(stratum, budget)).sum()
    }

    fn left_of(&self, stratum: &Stratum, budget: u64) -> u64 {
        let spent: u64 = stratum.prompts.iter().map(|at| self.state.by_prompt.asked(*at)).sum();
        stratum.share_of(budget).saturating_sub(spent)
    }

    /// The next round; none where nothing is left to be tried.
    pub(super) fn led_round(&self) -> Vec<Piece> {
        let units: Vec<Unit> = self.campaign.shape.units(self.campaign.mask.kind).collect();
        let mut due = self.first(&units);
        if due.is_empty() {
            due = self.worthwhile();
        }
        let pieces = |(prompts, units): (Vec<u32>, Vec<Unit>)| self.ablations(&prompts, &units);
        due.into_iter().flat_map(pieces).collect()
    }

    /// What every unit is tried on first, and was not yet.
    fn first(&self, units: &[Unit]) -> Stretches {
        let mut due = Stretches::new();
        for stratum in strata(self.state).iter().filter(|s| self.is_open(s)) {
            let pairs = self.campaign.mind.first.of(self.campaign.probe.exact_pairs as usize);
            let each = stratum.share_of(pairs as u64) as usize / units.len().max(1);
            let each = each.max(2).min(stratum.prompts.len());
            for unit in units {
                let (tried, ahead) = self.ahead(*unit, stratum);
                if tried < each {
                    let prompts = ahead.into_iter().take(each - tried).collect();
                    due.entry(prompts).or_default().push(*unit);
                }
            }
        }
        due
    }

    fn is_open(&self, stratum: &Stratum) -> bool {
        self.left_of(stratum, self.campaign.probe.exact_pairs) > 0
    }

    /// How many of a stratum's prompts a unit was tried on, and the others in order.
    fn ahead(&self, unit: Unit, stratum: &Stratum) -> (usize, Vec<u32>) {
        let known = &self.state.by_prompt;
        let ahead: Vec<u32> =
            stratum.prompts.iter().copied().filter(|at| !known.was_tried(unit, *at)).collect();
        (stratum.prompts.len() - ahead.len(), ahead)
    }

    /// What a round's pairs are best spent on.
    fn worthwhile(&self) -> Stretches {
        let mut due = Stretches::new();
        let (Some(parts), Some(drawn)) = (parts(self.state, Say::Typical), &self.state.mask) else {
            return due;
        };
        let is_open: Vec<bool> = parts.strata.iter().map(|s| self.is_open(s)).collect();
        let of = |(unit, own): (&Unit, &Vec<Score>)| self.hopeful((&parts, &is_open), (*unit, own));
        let mut open: Vec<Hopeful> = parts.scores.iter().map(of).collect();
        let mut left = self.round_pairs();
        while left > 0 {
            let worthy = open.iter_mut().filter_map(|unit| Some((unit.best(drawn.cut)?, unit)));
            // Of equals the first.
            let best = worthy.reduce(|a, b| if b.0.1 > a.0.1 { b } else { a });
            let Some(((at, _), unit)) = best else { break };
            let prompts = unit.take(at);
            left = left.saturating_sub(prompts.len() as u64);
            due.entry(prompts).or_default().push(unit.unit);
        }
        due
    }

    fn hopeful(
        &self,
        (parts, is_open): (&Parts, &[bool]),
        (unit, own): (Unit, &[Score]),
    ) -> Hopeful {
        let part = |((stratum, score), is_open): ((&Stratum, &Score), &bool)| {
            let (tried, ahead) = self.ahead(unit, stratum);
            let error = stratum.weight * score.error;
            let ahead = if *is_open { ahead } else { Vec::new() };
            Part { variance: error * error, tried, ahead, taken: 0 }
        };
        let known = parts.strata.iter().zip(own).zip(is_open).map(part).collect();
        Hopeful { unit, score: parts.whole(own), parts: known }
    }

    /// Pairs of a round: as many as the others, but no more than are left.
    fn round_pairs(&self) -> u64 {
        let (probe, mind) = (&self.campaign.probe, &self.campaign.mind);
        let rest = mind.first.rest().of(probe.exact_pairs as usize) as u64;
        rest.div_ceil(u64::from(mind.rounds.max(1))).min(self.exact_left(probe.exact_pairs))
    }
}

/// A unit that may be looked at more.
struct Hopeful {
    unit: Unit,
    score: Score,
    parts: Vec<Part>,
}

/// The same on one stratum.
struct Part {
    /// What it adds to the variance of the unit's score.
    variance: f64,
    /// Prompts that the unit was tried on.
    tried: usize,
    /// Those that it was not.
    ahead: Vec<u32>,
    /// How many of these it is to get.
    taken: usize,
}

impl Part {
    /// The prompts that come next.
    fn more(&self) -> usize {
        AT_ONCE.min(self.ahead.len() - self.taken)
    }

    /// The variance once so many prompts more are known.
    fn variance_with(&self, more: usize) -> f64 {
        let before = self.tried.max(1) as f64;
        self.variance * before / (self.tried.max(1) + self.taken + more) as f64
    }
}

impl Hopeful {
    /// The stratum where the next prompts are worth most, and what each of them is worth there; none where all are tried.
    fn best(&self, cut: f64) -> Option<(usize, f64)> {
        let now: f64 = self.parts.iter().map(|part| part.variance_with(0)).sum();
        let of = |(at, part): (usize, &Part)| {
            let more = part.more();
            let then = now - part.variance_with(0) + part.variance_with(more);
            let then = if then > 0.0 { then.sqrt() } else { 0.0 };
            let value = worth(&self.score, cut, (now.sqrt(), then));
            (more > 0).then(|| (at, value / more as f64))
        };
        let offers = self.parts.iter().enumerate().filter_map(of);
        offers.reduce(|a, b| if b.1 > a.1 { b } else { a })
    }

    fn take(&mut self, at: usize) -> Vec<u32> {
        let Some(part) = self.parts.get_mut(at) else { return Vec::new() };
        let more = part.more();
        let next = part.ahead.iter().skip(part.taken).take(more).copied().collect();
        part.taken += more;
        next
    }
}

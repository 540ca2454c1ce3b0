//! Proposes rounds of exact expert ablations, each where it tells most.
//!
//! The first round tries every unit on the same few prompts. Each later one spends its pairs where [`worth`] says that
//! they lessen the expected loss of deciding wrongly most: on units near the cut of which little is known. A unit goes
//! through the prompts in one fixed order from where it stopped, so that no prompt says the same twice; those come first
//! whose cheap scores are known, which effects are corrected by. Tasks hold the units that have the same prompts ahead.
//! Recorded effects of the shipped teacher, a tenth of all pairs: masks of a quarter of the experts cost .006 nats per
//! token more than the best one by these rounds, .08 by as many pairs on all units alike.

use super::View;
use super::view::Piece;
use crate::worth::worth;
use crate::{Dice, Split};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::Unit;

/// Prompts that a unit gets at once: those of one task cost it a run of the whole model.
const AT_ONCE: usize = 8;

/// Units by the stretch of prompts that they are to be tried on.
type Stretches = BTreeMap<(usize, usize), Vec<Unit>>;

/// The prompts ahead: their place among all that units were ever asked of, and in the campaign.
type Ahead = Vec<(u32, u32)>;

impl View<'_> {
    /// The next round; none where every unit was tried on every prompt.
    pub(super) fn led_round(&self) -> Vec<Piece> {
        let ahead = self.ahead();
        let units: Vec<Unit> = self.campaign.shape.units(self.campaign.mask.kind).collect();
        let first = self.first_prompts(units.len()).min(ahead.len());
        let mut due = Stretches::new();
        for unit in &units {
            let from = self.reached(*unit, &ahead);
            if from < first {
                due.entry((from, first)).or_default().push(*unit);
            }
        }
        if due.is_empty() {
            due = self.worthwhile(&units, &ahead);
        }
        let pieces = |((from, to), units): ((usize, usize), Vec<Unit>)| {
            let stretch = ahead.get(from..to).unwrap_or_default();
            let prompts: Vec<u32> = stretch.iter().map(|(_, at)| *at).collect();
            self.ablations(&prompts, &units)
        };
        due.into_iter().flat_map(pieces).collect()
    }

    /// Prompts that every unit is tried on.
    fn first_prompts(&self, units: usize) -> usize {
        let pairs = self.campaign.mind.first.of(self.campaign.probe.exact_pairs as usize);
        (pairs / units.max(1)).max(2)
    }

    /// The prompts in the order that units were asked in so far, then the other train prompts in a random one, those
    /// with known cheap scores first. One that cannot be run, or is not wanted any more, is left out, and its place with
    /// it.
    fn ahead(&self) -> Ahead {
        let live = self.measurable(Split::Train);
        let mut order = self.state.reached.order.clone();
        let asked: BTreeSet<u32> = order.iter().copied().collect();
        let mut rest: Vec<u32> = live.iter().copied().filter(|at| !asked.contains(at)).collect();
        Dice::new(self.campaign.seed, "fresh prompts", 0).shuffle(&mut rest);
        let (known, others): (Vec<u32>, Vec<u32>) =
            rest.into_iter().partition(|at| self.state.covariates.knows(*at));
        order.extend(known.into_iter().chain(others));
        let live: BTreeSet<u32> = live.into_iter().collect();
        (0..).zip(order).filter(|(_, at)| live.contains(at)).collect()
    }

    /// Where in them a unit goes on.
    fn reached(&self, unit: Unit, ahead: &Ahead) -> usize {
        let next = self.state.reached.units.get(&unit).copied().unwrap_or(0);
        ahead.partition_point(|(place, _)| *place < next)
    }

    /// The stretches that a round's pairs are best spent on, and for which units.
    fn worthwhile(&self, units: &[Unit], ahead: &Ahead) -> Stretches {
        let mut stretches = Stretches::new();
        let Some(drawn) = &self.state.mask else { return stretches };
        let value = |unit: &Unit, from: usize| -> Option<f64> {
            let more = AT_ONCE.min(ahead.len().saturating_sub(from)) as u32;
            let score = drawn.scores.get(unit).filter(|_| more > 0)?;
            Some(worth(score, drawn.cut, (from as u32, more)) / f64::from(more))
        };
        let open = |unit: &Unit| {
            let from = self.reached(*unit, ahead);
            (*unit, from, value(unit, from))
        };
        let mut open: Vec<(Unit, usize, Option<f64>)> = units.iter().map(open).collect();
        let mut left = self.round_pairs();
        while left > 0 {
            // Of equals the first; what is through all prompts has no worth.
            let worthy = open.iter_mut().filter(|(.., worth)| worth.is_some());
            let best = worthy.max_by(|a, b| {
                let [x, y] = [a.2, b.2].map(|worth| worth.unwrap_or(0.0));
                x.total_cmp(&y).then(b.0.cmp(&a.0))
            });
            let Some((unit, from, worth)) = best else { break };
            let to = (*from + AT_ONCE).min(ahead.len());
            stretches.entry((*from, to)).or_default().push(*unit);
            left = left.saturating_sub((to - *from) as u64);
            (*from, *worth) = (to, value(unit, to));
        }
        stretches
    }

    /// Pairs of a round: as many as the others, but no more than are left.
    fn round_pairs(&self) -> u64 {
        let (probe, mind) = (&self.campaign.probe, &self.campaign.mind);
        let rest = mind.first.rest().of(probe.exact_pairs as usize) as u64;
        let left = probe.exact_pairs.saturating_sub(self.state.explored.pairs);
        rest.div_ceil(u64::from(mind.rounds.max(1))).min(left)
    }
}

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
use std::collections::BTreeMap;
use uspx_domain::Unit;

/// Prompts that a unit gets at once: those of one task cost it a run of the whole model.
const AT_ONCE: u32 = 8;

impl View<'_> {
    /// The next round; none where every unit was tried on every prompt.
    pub(super) fn led_round(&self) -> Vec<Piece> {
        let order = self.led_order();
        let units: Vec<Unit> = self.campaign.shape.units(self.campaign.mask.kind).collect();
        let first = self.first_prompts(units.len()).min(order.len() as u32);
        let mut due: BTreeMap<(u32, u32), Vec<Unit>> = BTreeMap::new();
        for unit in &units {
            let from = self.reached(*unit);
            if from < first {
                due.entry((from, first)).or_default().push(*unit);
            }
        }
        if due.is_empty() {
            due = self.worthwhile(&units, order.len() as u32);
        }
        let piece = |((from, to), units): ((u32, u32), Vec<Unit>)| {
            let prompts = order.get(from as usize..to as usize).unwrap_or_default().to_vec();
            self.ablations(&prompts, &units)
        };
        due.into_iter().flat_map(piece).collect()
    }

    /// Prompts that every unit is tried on.
    fn first_prompts(&self, units: usize) -> u32 {
        let pairs = self.campaign.mind.first.of(self.campaign.probe.exact_pairs as usize);
        (pairs / units.max(1)).max(2) as u32
    }

    /// Train prompts in a fixed random order, those with known cheap scores first.
    fn led_order(&self) -> Vec<u32> {
        let mut order = self.measurable(Split::Train);
        Dice::new(self.campaign.seed, "fresh prompts", 0).shuffle(&mut order);
        let (mut known, others): (Vec<u32>, Vec<u32>) =
            order.into_iter().partition(|at| self.state.covariates.knows(*at));
        known.extend(others);
        known
    }

    /// How many of them a unit was asked of.
    fn reached(&self, unit: Unit) -> u32 {
        self.state.reached.get(&unit).copied().unwrap_or(0)
    }

    /// The windows of prompts that a round's pairs are best spent on, and for which units.
    fn worthwhile(&self, units: &[Unit], prompts: u32) -> BTreeMap<(u32, u32), Vec<Unit>> {
        let mut windows: BTreeMap<(u32, u32), Vec<Unit>> = BTreeMap::new();
        let Some(drawn) = &self.state.mask else { return windows };
        let mut reached: Vec<u32> = units.iter().map(|unit| self.reached(*unit)).collect();
        let value = |at: usize, reached: &[u32]| -> Option<f64> {
            let (unit, from) = (units.get(at)?, reached.get(at).copied()?);
            let more = AT_ONCE.min(prompts.saturating_sub(from));
            let score = drawn.scores.get(unit).filter(|_| more > 0)?;
            Some(worth(score, drawn.cut, (from, more)) / f64::from(more))
        };
        let mut values: Vec<Option<f64>> = (0..units.len()).map(|at| value(at, &reached)).collect();
        let mut left = self.round_pairs();
        while left > 0 {
            let open = values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?)));
            // Of equals the first.
            let best = open.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
            let Some((at, _)) = best else { break };
            let (Some(unit), Some(from)) = (units.get(at), reached.get_mut(at)) else { break };
            let to = (*from + AT_ONCE).min(prompts);
            windows.entry((*from, to)).or_default().push(*unit);
            left = left.saturating_sub(u64::from(to - *from));
            *from = to;
            if let Some(place) = values.get_mut(at) {
                *place = value(at, &reached);
            }
        }
        windows
    }

    /// Pairs of a round: as many as the others, but no more than are left.
    fn round_pairs(&self) -> u64 {
        let (probe, mind) = (&self.campaign.probe, &self.campaign.mind);
        let rest = mind.first.rest().of(probe.exact_pairs as usize) as u64;
        let left = probe.exact_pairs.saturating_sub(self.state.explored.pairs);
        rest.div_ceil(u64::from(mind.rounds.max(1))).min(left)
    }
}

//! Proposes rounds of exact expert ablations and candidate masks, until the budget is spent or the
//! mask is stable.
//!
//! A round spends most of its budget on all units alike and the rest where the pheromone points;
//! each part and the candidate masks look at fresh prompts. Tasks hold units of few layers, so that
//! a worker can reuse what lies below them.

use super::judge_masks::{MaskTrial, trials};
use super::{Offer, Piece, Proposer, View, batches};
use crate::mask::{Budget, near};
use crate::state::Stage;
use crate::{Dice, Purpose, Split, TrialRole};
use uspx_domain::{Ablate, Cut, Unit, Work};

pub(super) struct Explore;

impl Proposer for Explore {
    fn stage(&self) -> Stage {
        Stage::Explore
    }

    fn offer(&self, view: &View<'_>) -> Offer {
        let mut fresh = Fresh::new(view);
        if view.explored_enough() || fresh.order.is_empty() {
            return Offer::Nothing;
        }
        if view.campaign.mind.leads() {
            return view.led_round().into();
        }
        let mut works = view.uniform_part(&mut fresh);
        works.extend(view.led_part(&mut fresh));
        works.extend(view.candidates(&mut fresh));
        works.into()
    }
}

impl View<'_> {
    /// Whether the exact budget is spent, or the mask is stable after the least that must be spent.
    fn explored_enough(&self) -> bool {
        let (spent, probe) = (self.state.explored.pairs, &self.campaign.probe);
        let stable = self.state.stable_versions >= self.campaign.mask.stable_versions;
        let is_spent = |budget: u64| match self.campaign.mind.leads() {
            true => self.exact_left(budget) == 0,
            false => spent >= budget,
        };
        is_spent(probe.exact_pairs) || (stable && is_spent(probe.exact_least))
    }

    /// Every unit, on as many prompts as its share of the round allows.
    fn uniform_part(&self, fresh: &mut Fresh) -> Vec<Piece> {
        let probe = &self.campaign.probe;
        let units: Vec<Unit> = self.campaign.shape.units(self.campaign.mask.kind).collect();
        let prompts = probe.uniform.of(probe.round_pairs as usize) / units.len().max(1);
        self.ablations(&fresh.take(prompts.max(1)), &units)
    }

    /// Units drawn by pheromone, on the round's number of prompts.
    fn led_part(&self, fresh: &mut Fresh) -> Vec<Piece> {
        let probe = &self.campaign.probe;
        let count = probe.uniform.rest().of(probe.round_pairs as usize)
            / probe.round_prompts.max(1) as usize;
        let units: Vec<Unit> = self.campaign.shape.units(self.campaign.mask.kind).collect();
        let weights: Vec<f64> =
            units.iter().map(|u| self.state.pheromone.get(u).copied().unwrap_or(1.0)).collect();
        let mut drawn = fresh.dice.draw(&weights, count);
        drawn.sort_unstable();
        let led: Vec<Unit> = drawn.into_iter().filter_map(|at| units.get(at).copied()).collect();
        if led.is_empty() {
            Vec::new()
        } else {
            self.ablations(&fresh.take(probe.round_prompts as usize), &led)
        }
    }

    /// Each of these units on each of these prompts.
    pub(super) fn ablations(&self, prompts: &[u32], units: &[Unit]) -> Vec<Piece> {
        let work = |units: Vec<Unit>| {
            let cuts = units.into_iter().map(Cut::Unit).collect();
            Work::Ablate(Ablate { prompts: prompts.to_vec(), cuts })
        };
        let batches = batches(units, self.units_per_task(prompts.len(), units.len()));
        batches.into_iter().map(|units| self.teacher(Purpose::Evidence, work(units))).collect()
    }

    /// One task: the mask of the day and its candidates on the same prompts. Not before single
    /// units gave a first mask.
    fn candidates(&self, fresh: &mut Fresh) -> Option<Piece> {
        let round = self.state.explored.rounds;
        let current = &self.state.mask.as_ref().filter(|_| round > 0)?.mask;
        let budget = Budget::of(self.campaign);
        let found = near(
            &mut fresh.dice,
            &budget,
            current,
            &self.state.pheromone,
            self.campaign.probe.candidates,
        );
        if found.is_empty() {
            return None;
        }
        let candidate = |(at, mask)| (TrialRole::Candidate(round, at), mask);
        let mut tried: Vec<MaskTrial> = vec![(TrialRole::Current(round), current.clone())];
        tried.extend((0..).zip(found).map(candidate));
        let prompts = fresh.take(self.campaign.probe.round_prompts as usize);
        Some(trials(self, prompts, tried))
    }
}

/// Train prompts in one fixed random order, each round going on where the last one stopped, and the
/// round's dice.
struct Fresh {
    order: Vec<u32>,
    next: usize,
    dice: Dice,
}

impl Fresh {
    fn new(view: &View<'_>) -> Self {
        let campaign = view.campaign;
        let mut order = view.measurable(Split::Train);
        Dice::new(campaign.seed, "fresh prompts", 0).shuffle(&mut order);
        let next = (view.state.explored.prompts % order.len().max(1) as u64) as usize;
        let dice = Dice::new(campaign.seed, "round", u64::from(view.state.explored.rounds));
        Self { order, next, dice }
    }

    /// The next prompts; never one twice in a batch, from the start again when all were used.
    fn take(&mut self, count: usize) -> Vec<u32> {
        let count = count.min(self.order.len());
        let taken = self.order.iter().copied().cycle().skip(self.next).take(count).collect();
        self.next = (self.next + count) % self.order.len().max(1);
        taken
    }
}

//! What is known of single prompts: exact effects, and the cheap scores that they are held beside.
//!
//! A person's prompts come and go, and a mask is for those that they have now. So exact effects are kept by prompt,
//! where single ones are known of (a kind of unit that deposits have values of), and estimates are made from those of
//! the live prompts alone. A pair of unit and prompt takes some 20 bytes; a budget of exact runs bounds their number.

use super::evidence::rises;
use super::{Sums, Trails};
use crate::{CampaignConfig, PlannedTask};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Answer, Deposit, Digest, Outcome, Statistic, Unit, Work, WorkerId};

/// The score that effects are held beside: of the cheap ones the nearest to them, unit by unit.
pub const CONTROL: Statistic = Statistic::ATP_ABS;
/// Another that predicts them, known of more prompts.
pub const SECOND: Statistic = Statistic::EASY_EP;

/// A cheap score, in nats or its own unit, summed over a prompt's response tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Response tokens of the prompts that it is known of, by place.
    tokens: BTreeMap<u32, u32>,
    /// By unit, then place; 0 where it is not known.
    values: BTreeMap<Unit, Vec<f32>>,
    /// Who measured it on the prompt at a place, by place among [`ByPrompt::workers`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    by: BTreeMap<u32, u32>,
}

impl Scores {
    /// Whether it is known of the prompt at a place.
    pub fn knows(&self, at: u32) -> bool {
        self.tokens.contains_key(&at)
    }

    /// A unit's value on the prompt at a place, and the prompt's tokens; none where it is not known.
    pub fn get(&self, unit: Unit, at: u32) -> Option<(f64, u32)> {
        let tokens = *self.tokens.get(&at)?;
        Some((f64::from(*self.values.get(&unit)?.get(at as usize)?), tokens))
    }

    /// A unit's values, by place; 0 where it is not known.
    pub(crate) fn values(&self, unit: Unit) -> Option<&[f32]> {
        self.values.get(&unit).map(Vec::as_slice)
    }

    /// Response tokens of the prompt at a place; none where it is not known.
    pub(crate) fn tokens(&self, at: u32) -> Option<u32> {
        self.tokens.get(&at).copied()
    }

    /// Their mean over all prompts that it is known of; 1 where it is known of none.
    pub(crate) fn mean_tokens(&self) -> f64 {
        let sum: u64 = self.tokens.values().map(|t| u64::from(*t)).sum();
        if sum == 0 { 1.0 } else { sum as f64 / self.tokens.len() as f64 }
    }

    /// The first word on a prompt counts.
    fn learn(&mut self, statistic: Statistic, (places, by): (&[u32], u32), deposit: &Deposit) {
        let columns = deposit.columns.iter().filter(|c| c.statistic == statistic);
        let columns: Vec<_> = columns.filter(|c| !c.values.is_empty()).collect();
        for column in &columns {
            let values = self.values.entry(column.unit).or_default();
            for (at, value) in places.iter().zip(&column.values) {
                if self.tokens.contains_key(at) {
                    continue;
                }
                if values.len() <= *at as usize {
                    values.resize(*at as usize + 1, 0.0);
                }
                if let Some(place) = values.get_mut(*at as usize) {
                    *place = *value;
                }
            }
        }
        if !columns.is_empty() {
            for (at, prompt) in places.iter().zip(&deposit.prompts) {
                if self.tokens.insert(*at, prompt.tokens).is_none() {
                    self.by.insert(*at, by);
                }
            }
        }
    }

    /// Forgets what a worker measured; on which prompts.
    fn retract(&mut self, worker: u32) -> BTreeSet<u32> {
        let theirs = self.by.iter().filter(|(_, by)| **by == worker).map(|(at, _)| *at);
        let gone: BTreeSet<u32> = theirs.collect();
        self.by.retain(|_, by| *by != worker);
        self.tokens.retain(|at, _| !gone.contains(at));
        gone
    }

    /// A unit's sums over all prompts that it is known of, each so many times.
    fn sums(&self, values: &[f32], times: impl Fn(u32) -> u32) -> Sums {
        let mut sums = Sums::default();
        for (at, tokens) in &self.tokens {
            if let Some(value) = values.get(*at as usize) {
                (0..times(*at)).for_each(|_| sums.observe(f64::from(*value), *tokens));
            }
        }
        sums
    }

    fn moved(self, to: &BTreeMap<u32, u32>) -> Self {
        let by = self.by.into_iter().filter_map(|(at, by)| Some((*to.get(&at)?, by)));
        let tokens = self.tokens.into_iter().filter_map(|(at, t)| Some((*to.get(&at)?, t)));
        let values = |old: Vec<f32>| {
            let kept = (0u32..).zip(old).filter_map(|(at, value)| Some((*to.get(&at)?, value)));
            let kept: BTreeMap<u32, f32> = kept.collect();
            let behind = kept.keys().next_back().map_or(0, |last| last + 1);
            (0..behind).map(|at| kept.get(&at).copied().unwrap_or(0.0)).collect()
        };
        let values = self.values.into_iter().map(|(unit, old)| (unit, values(old)));
        Self { tokens: tokens.collect(), values: values.collect(), by: by.collect() }
    }
}

/// By how much a unit's loss raises that of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Nats, summed over response tokens.
    pub nats: f32,
    /// Response tokens.
    pub tokens: u32,
    /// Who measured it, by place among the workers that measured anything; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<u32>,
}

/// Prompts on which what was known is taken back, by place.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Gone {
    /// Whether anything is.
    pub any: bool,
    /// Those of [`SECOND`].
    pub traced: BTreeSet<u32>,
    /// Those of [`CONTROL`].
    pub patched: BTreeSet<u32>,
}

impl Effect {
    /// Nats per response token.
    pub(crate) fn per_token(self) -> f64 {
        f64::from(self.nats) / f64::from(self.tokens.max(1))
    }
}

/// What is known of single prompts, by place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ByPrompt {
    /// [`CONTROL`].
    pub control: Scores,
    /// [`SECOND`].
    pub second: Scores,
    /// Exact effects by unit.
    exact: BTreeMap<Unit, BTreeMap<u32, Effect>>,
    /// Exact runs that were asked for, by prompt.
    asked: BTreeMap<u32, u64>,
    /// Workers that measured any of this, in the order of their first answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    workers: Vec<WorkerId>,
}

impl ByPrompt {
    /// Who measured an effect; none where that is not known.
    pub fn measured_by(&self, effect: &Effect) -> Option<&WorkerId> {
        self.workers.get(effect.by? as usize)
    }

    /// A unit's effects.
    pub fn effects(&self, unit: Unit) -> impl Iterator<Item = (u32, Effect)> {
        self.exact.get(&unit).into_iter().flatten().map(|(at, effect)| (*at, *effect))
    }

    /// Whether a unit was tried on the prompt at a place.
    pub(crate) fn was_tried(&self, unit: Unit, at: u32) -> bool {
        self.exact.get(&unit).is_some_and(|tried| tried.contains_key(&at))
    }

    /// Exact runs that were asked for on the prompt at a place.
    pub(crate) fn asked(&self, at: u32) -> u64 {
        self.asked.get(&at).copied().unwrap_or(0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Notes what is asked for.
    pub(crate) fn open(&mut self, tasks: &[PlannedTask]) {
        for task in tasks {
            let Work::Ablate(ablate) = &task.work else { continue };
            for at in &ablate.prompts {
                *self.asked.entry(*at).or_default() += ablate.cuts.len() as u64;
            }
        }
    }

    /// Lets an epoch act: takes its answers in one after another. The first word on a pair counts, in the order of tasks'
    /// names (invariant 1).
    pub(crate) fn closing(&mut self) -> Closing<'_> {
        let known = self.workers.iter().cloned().zip(0..).collect();
        Closing { all: self, known }
    }

    /// Forgets what a worker measured, and that it was asked for.
    pub(super) fn retract(&mut self, worker: &WorkerId) -> Gone {
        let Some(worker) = self.workers.iter().position(|known| known == worker) else {
            return Gone::default();
        };
        let worker = worker as u32;
        let (traced, patched) = (self.second.retract(worker), self.control.retract(worker));
        let mut pairs: BTreeMap<u32, u64> = BTreeMap::new();
        for tried in self.exact.values_mut() {
            tried.retain(|at, effect| {
                let is_theirs = effect.by == Some(worker);
                if is_theirs {
                    *pairs.entry(*at).or_default() += 1;
                }
                !is_theirs
            });
        }
        for (at, count) in &pairs {
            self.asked.entry(*at).and_modify(|asked| *asked = asked.saturating_sub(*count));
        }
        let any = !(traced.is_empty() && patched.is_empty() && pairs.is_empty());
        Gone { any, traced, patched }
    }

    /// The sums over prompts of everything that is kept of single ones, each prompt so many times.
    pub(super) fn sums(
        &self,
        times: impl Fn(u32) -> u32 + Copy,
    ) -> impl Iterator<Item = (Statistic, Unit, Sums)> {
        let cheap = [(CONTROL, &self.control), (SECOND, &self.second)].into_iter();
        let cheap = cheap.flat_map(move |(statistic, scores)| {
            let sums = move |values: &[f32]| scores.sums(values, times);
            scores.values.iter().map(move |(unit, values)| (statistic, *unit, sums(values)))
        });
        let exact = self.exact.iter().map(move |(unit, tried)| {
            let mut sums = Sums::default();
            for (at, effect) in tried {
                let nats = f64::from(effect.nats);
                (0..times(*at)).for_each(|_| sums.observe(nats, effect.tokens));
            }
            (Statistic::EXACT, *unit, sums)
        });
        cheap.chain(exact)
    }

    /// The same as trails on which nothing has evaporated.
    pub(crate) fn trails(&self, times: impl Fn(u32) -> u32 + Copy) -> Trails {
        let mut trails = Trails::default();
        for (statistic, unit, sums) in self.sums(times) {
            trails.replace(statistic, unit, sums);
        }
        trails
    }

    /// What stays for another campaign on the same teacher: what is known of the prompts that both have, at the
    /// places that they have there. Its budget is its own.
    pub(crate) fn moved(self, old: &CampaignConfig, new: &CampaignConfig) -> Self {
        let places: BTreeMap<(&str, Digest), u32> =
            new.live().map(|(at, p)| ((p.id.as_str(), p.digest), at)).collect();
        let place = |p: &crate::PromptEntry| places.get(&(p.id.as_str(), p.digest)).copied();
        let to: BTreeMap<u32, u32> =
            old.live().filter_map(|(at, prompt)| Some((at, place(prompt)?))).collect();
        let exact = |tried: BTreeMap<u32, Effect>| -> BTreeMap<u32, Effect> {
            tried.into_iter().filter_map(|(at, effect)| Some((*to.get(&at)?, effect))).collect()
        };
        Self {
            control: self.control.moved(&to),
            second: self.second.moved(&to),
            exact: self.exact.into_iter().map(|(unit, tried)| (unit, exact(tried))).collect(),
            asked: BTreeMap::new(),
            workers: self.workers,
        }
    }
}

/// What is known of single prompts, while an epoch acts.
pub(crate) struct Closing<'a> {
    all: &'a mut ByPrompt,
    known: BTreeMap<WorkerId, u32>,
}

impl Closing<'_> {
    /// Takes in what an answer says of single units.
    pub(crate) fn take(&mut self, campaign: &CampaignConfig, task: &PlannedTask, answer: &Answer) {
        let places = || task.measured(campaign, &answer.skipped);
        match (&task.work, &answer.outcome) {
            (Work::Estimate(_), Outcome::Scores(deposit)) => {
                let (places, by) = (places(), self.place_of(&answer.worker));
                self.all.control.learn(CONTROL, (&places, by), deposit);
                self.all.second.learn(SECOND, (&places, by), deposit);
            }
            (Work::Ablate(ablate), Outcome::Losses(rows)) => {
                let (places, by) = (places(), self.place_of(&answer.worker));
                for (unit, rises) in rises(ablate, rows) {
                    let tried = self.all.exact.entry(unit).or_default();
                    for (at, (rise, tokens)) in places.iter().zip(rises) {
                        let effect = Effect { nats: rise as f32, tokens, by: Some(by) };
                        tried.entry(*at).or_insert(effect);
                    }
                }
            }
            _ => {}
        }
    }

    fn place_of(&mut self, worker: &WorkerId) -> u32 {
        *self.known.entry(worker.clone()).or_insert_with(|| {
            self.all.workers.push(worker.clone());
            self.all.workers.len() as u32 - 1
        })
    }
}

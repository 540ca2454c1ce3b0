//! Exact effects beside a cheap score of the same prompts. The cheap score is known of every prompt, the effects of a
//! few: what the two share says how far these few are unlike the rest.
//!
//! Values of single prompts are kept for the one score that serves ([`CONTROL`]), of the kinds of unit that have them:
//! 4 bytes a unit and prompt. Sums are as exact as trails, and evaporate with them (invariant 1).

use super::evidence::{Sums, rises};
use crate::{CampaignConfig, Fixed, PlannedTask, Share};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Answer, Outcome, Statistic, Unit, Work};

/// The score that effects are held beside: of the cheap ones the nearest to them, unit by unit.
pub const CONTROL: Statistic = Statistic::ATP_ABS;

/// Sums over prompts on which both are known: x is the effect, c the cheap score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Both {
    /// Those of the effect.
    pub exact: Sums,
    /// Σc.
    pub c: Fixed,
    /// Σc².
    pub cc: Fixed,
    /// Σct.
    pub ct: Fixed,
    /// Σcx.
    pub cx: Fixed,
}

impl Both {
    fn observe(&mut self, (x, c): (f64, f64), tokens: u32) {
        self.exact.observe(x, tokens);
        self.c += Fixed::of(c);
        self.cc += Fixed::of(c * c);
        self.ct += Fixed::of(c * f64::from(tokens));
        self.cx += Fixed::of(c * x);
    }

    fn add(&mut self, other: &Self) {
        self.exact.add(&other.exact);
        self.c += other.c;
        self.cc += other.cc;
        self.ct += other.ct;
        self.cx += other.cx;
    }

    fn evaporate(&mut self, lambda: Share) {
        self.exact.evaporate(lambda);
        for sum in [&mut self.c, &mut self.cc, &mut self.ct, &mut self.cx] {
            *sum = sum.times(lambda);
        }
    }
}

/// What is known of both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Covariates {
    /// Prompts whose cheap scores are known, by place.
    known: BTreeSet<u32>,
    /// These scores by unit, then place; 0 where it is not known.
    values: BTreeMap<Unit, Vec<f32>>,
    sums: BTreeMap<Unit, Both>,
}

impl Covariates {
    /// A unit's sums.
    pub fn get(&self, unit: Unit) -> Option<&Both> {
        self.sums.get(&unit)
    }

    /// Whether the cheap score of the prompt at a place is known.
    pub fn knows(&self, at: u32) -> bool {
        self.known.contains(&at)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.sums.is_empty()
    }

    /// What stays for another campaign, whose prompts have other places.
    pub(crate) fn without_prompts(self) -> Self {
        Self { sums: self.sums, ..Self::default() }
    }

    /// Lets an epoch act: its cheap scores first, so that effects of the same epoch find theirs.
    pub(crate) fn close(&mut self, campaign: &CampaignConfig, answers: &[(&PlannedTask, &Answer)]) {
        for (task, answer) in answers {
            if let (Work::Estimate(_), Outcome::Scores(_)) = (&task.work, &answer.outcome) {
                self.learn(&task.measured(campaign, &answer.skipped), &answer.outcome);
            }
        }
        let mut gathered: BTreeMap<Unit, Both> = BTreeMap::new();
        for (task, answer) in answers {
            if let (Work::Ablate(ablate), Outcome::Losses(rows)) = (&task.work, &answer.outcome) {
                let places = task.measured(campaign, &answer.skipped);
                for (unit, rises) in rises(ablate, rows) {
                    self.gather(&mut gathered, unit, places.iter().zip(rises));
                }
            }
        }
        let lambda = campaign.probe.evaporation;
        self.sums.values_mut().for_each(|both| both.evaporate(lambda));
        for (unit, both) in gathered {
            self.sums.entry(unit).or_default().add(&both);
        }
    }

    /// The first word on a prompt counts.
    fn learn(&mut self, places: &[u32], outcome: &Outcome) {
        let Outcome::Scores(deposit) = outcome else { return };
        let columns = deposit.columns.iter().filter(|c| c.statistic == CONTROL);
        let mut any = false;
        for column in columns.filter(|c| !c.values.is_empty()) {
            any = true;
            let values = self.values.entry(column.unit).or_default();
            for (at, value) in places.iter().zip(&column.values) {
                if self.known.contains(at) {
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
        if any {
            self.known.extend(places);
        }
    }

    fn gather<'a>(
        &self,
        gathered: &mut BTreeMap<Unit, Both>,
        unit: Unit,
        rises: impl Iterator<Item = (&'a u32, (f64, u32))>,
    ) {
        let Some(values) = self.values.get(&unit) else { return };
        for (at, (rise, tokens)) in rises.filter(|(at, _)| self.known.contains(at)) {
            let control = values.get(*at as usize).copied().unwrap_or(0.0);
            gathered.entry(unit).or_default().observe((rise, f64::from(control)), tokens);
        }
    }
}

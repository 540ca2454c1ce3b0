//! Measuring single units on some prompts, by one estimator.

use super::Job;
use crate::{Asked, Estimator, Outcome, Refusal, UnitKind};
use serde::{Deserialize, Serialize};

/// Statistics or effects of single units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate<P> {
    /// On these prompts.
    pub prompts: Vec<P>,
    /// How.
    pub estimator: Estimator,
    /// Of all units of these kinds.
    pub kinds: Vec<UnitKind>,
    /// What replaces a unit, where the estimator replaces any.
    pub baseline: Baseline,
}

/// What replaces a unit's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// Nothing.
    Zero,
    /// Its mean over the prompts.
    Mean,
    /// Its output at the same position of another prompt with as many tokens. Not for tasks: it
    /// takes a set of prompts that find each other.
    Resample,
}

impl Baseline {
    /// Every baseline.
    pub const ALL: &[Self] = &[Self::Zero, Self::Mean, Self::Resample];

    /// Its name, on the wire, on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Mean => "mean",
            Self::Resample => "resample",
        }
    }
}

impl<P> Estimate<P> {
    pub(super) fn on<Q>(self, prompts: Vec<Q>) -> Estimate<Q> {
        let Self { estimator, kinds, baseline, .. } = self;
        Estimate { prompts, estimator, kinds, baseline }
    }
}

impl<P> Job<P> for Estimate<P> {
    fn name(&self) -> &'static str {
        self.estimator.name()
    }

    fn prompts(&self) -> &[P] {
        &self.prompts
    }

    fn is_comparable(&self) -> bool {
        true
    }

    fn check(&self, asked: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal> {
        let Outcome::Scores(deposit) = outcome else { return Err(Refusal::Kind(self.name())) };
        asked.deposit(deposit, |statistic, kind| {
            self.kinds.contains(&kind) && self.estimator.may_yield(statistic, kind)
        })
    }
}

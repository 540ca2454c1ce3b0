//! How units are measured, one row for each way. Planner, check of deposits, job runner, command
//! line and JSON read the rows; `worker/probe/src/estimators/` has the mathematics, one file each.

use crate::Baseline::{self, Mean, Resample, Zero};
use crate::UnitKind::{self, Channel, Expert, ExpertChannel, Feature, Head};
use crate::{ModelShape, Statistic};

/// What there is to know of an estimator.
#[derive(Debug)]
pub struct EstimatorRow {
    /// Its name, on the wire, in the ledger, on the command line and in JSON.
    pub name: &'static str,
    /// What it does, in a line of help.
    pub help: &'static str,
    /// The kinds of unit that it measures.
    pub kinds: &'static [UnitKind],
    /// The statistics that it yields.
    pub statistics: &'static [Statistic],
    /// Of these, a unit's effect on the loss in nats, which `probe patch` shows; none where it
    /// measures no effect.
    pub effect: Option<Statistic>,
    /// What may replace a unit; the first is taken where nothing is said.
    pub baselines: &'static [Baseline],
    /// Whether effects are exact; else they are approximations.
    pub is_exact: bool,
    /// What it needs of the model.
    pub needs: Needs,
    /// What it costs a prompt in forward passes of a model of so many layers, a backward one counting
    /// two, with its usual baseline; none where that depends on how many units are asked for.
    pub passes: Option<fn(f64) -> f64>,
    /// Inputs along the path to a prompt, where gradients are taken along one and nothing is said;
    /// `passes` counts so many.
    pub steps: Option<usize>,
}

impl EstimatorRow {
    /// The effect made positive per token before it is summed; none of an estimator without one.
    pub fn magnitude(&self) -> Option<Statistic> {
        self.statistics.iter().copied().find(|s| self.effect.is_some_and(|effect| effect != *s))
    }
}

/// What an estimator needs of the model, which memory is planned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Forward passes.
    Forward,
    /// Gradients.
    Gradients,
}

/// An estimator: a reference to its row.
#[derive(Clone, Copy)]
pub struct Estimator(&'static EstimatorRow);

table! {
    Estimator(EstimatorRow), "this is not the name of an estimator known here";
    /// Routing and activation statistics of one forward pass.
    TRACE: EstimatorRow {
        name: "trace",
        help: "Routing and activation statistics of one forward pass",
        kinds: &[Expert, Head, Channel, ExpertChannel],
        statistics: &[
            Statistic::COUNT,
            Statistic::GATE_MASS,
            Statistic::SALIENCY,
            Statistic::EASY_EP,
            Statistic::MARGIN,
            Statistic::HEAD_NORM,
            Statistic::HEAD_ENERGY,
            Statistic::CHANNEL_SIZE,
            Statistic::CHANNEL_ENERGY,
        ],
        effect: None,
        baselines: &[Zero],
        is_exact: false,
        needs: Needs::Forward,
        passes: Some(|_| 1.0),
        steps: None,
    },
    /// Attribution patching: (baseline − clean) times the gradient of the loss (Nanda 2023).
    ATP: EstimatorRow {
        name: "atp",
        help: "Attribution patching: all units from one backward pass",
        kinds: &[Expert, Head, Channel, ExpertChannel, Feature],
        statistics: &[Statistic::ATP, Statistic::ATP_ABS],
        effect: Some(Statistic::ATP),
        baselines: &[Mean, Zero],
        is_exact: false,
        needs: Needs::Gradients,
        // For the means, to keep what enters each layer, again to be differentiated.
        passes: Some(|_| 5.0),
        steps: None,
    },
    /// Attribution with gradients averaged along a path of inputs (Hanna et al. 2024).
    EAP_IG: EstimatorRow {
        name: "eap-ig",
        help: "The same with gradients averaged along a path of inputs",
        kinds: &[Expert, Head, Channel, Feature],
        statistics: &[Statistic::EAP_IG, Statistic::EAP_IG_ABS],
        effect: Some(Statistic::EAP_IG),
        baselines: &[Mean, Zero],
        is_exact: false,
        needs: Needs::Gradients,
        // For the means, and five times to keep what enters each layer, again, and back.
        passes: Some(|_| 21.0),
        steps: Some(5),
    },
    /// Attribution patching with gradients that leave out one layer each (GradDrop of AtP*; Kramár
    /// et al. 2024).
    ATP_STAR: EstimatorRow {
        name: "atp-star",
        help: "Attribution patching, averaged over gradients that leave out one layer each",
        kinds: &[Expert, Head],
        statistics: &[Statistic::ATP_STAR, Statistic::ATP_STAR_ABS],
        effect: Some(Statistic::ATP_STAR),
        baselines: &[Mean, Zero],
        is_exact: false,
        needs: Needs::Gradients,
        // For the means, to keep what enters each layer, and once back for each layer.
        passes: Some(|layers| 2.0 + 3.0 * layers),
        steps: None,
    },
    /// Relevance patching: (baseline − clean) times the coefficients of layer-wise relevance
    /// propagation (Jafari et al. 2025).
    RELP: EstimatorRow {
        name: "relp",
        help: "Relevance patching: coefficients of relevance in place of gradients, one pass back",
        kinds: &[Expert, Head, Channel, ExpertChannel],
        statistics: &[Statistic::RELP, Statistic::RELP_ABS],
        effect: Some(Statistic::RELP),
        baselines: &[Mean, Zero],
        is_exact: false,
        needs: Needs::Gradients,
        // As attribution patching.
        passes: Some(|_| 5.0),
        steps: None,
    },
    /// The first-order effect of a ban: the gradient times what re-routing changes.
    REROUTE: EstimatorRow {
        name: "reroute",
        help: "Bans of experts with their re-routing, to first order, from one backward pass",
        kinds: &[Expert],
        statistics: &[Statistic::REROUTE, Statistic::REROUTE_ABS],
        effect: Some(Statistic::REROUTE),
        baselines: &[Zero],
        is_exact: false,
        needs: Needs::Gradients,
        passes: Some(|_| 4.0),
        steps: None,
    },
    /// The same by the mean gradient along a path of inputs.
    REROUTE_IG: EstimatorRow {
        name: "reroute-ig",
        help: "The same with gradients averaged along a path of inputs",
        kinds: &[Expert],
        statistics: &[Statistic::REROUTE_IG, Statistic::REROUTE_IG_ABS],
        effect: Some(Statistic::REROUTE_IG),
        baselines: &[Zero],
        is_exact: false,
        needs: Needs::Gradients,
        passes: Some(|_| 20.0),
        steps: Some(5),
    },
    /// One run per unit, from where it bites.
    EXACT: EstimatorRow {
        name: "exact",
        help: "One run per unit",
        kinds: &[Expert, Head, Channel, Feature],
        statistics: &[Statistic::EXACT],
        effect: Some(Statistic::EXACT),
        baselines: &[Zero, Mean, Resample],
        is_exact: true,
        needs: Needs::Forward,
        passes: None,
        steps: None,
    },
}

impl Estimator {
    /// The estimators that measure effects, those of `probe patch`.
    pub fn of_effects() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|e| e.0.effect.is_some())
    }

    /// The estimator to ask for a statistic of `kind`.
    pub fn yielding(statistic: Statistic, kind: UnitKind) -> Option<Self> {
        let yields = |e: &Self| e.0.statistics.contains(&statistic) && e.0.kinds.contains(&kind);
        Self::ALL.iter().copied().find(yields)
    }

    /// What replaces a unit where nothing is said.
    pub fn usual_baseline(self) -> Baseline {
        self.0.baselines.first().copied().unwrap_or(Zero)
    }

    /// The kinds that it measures and `shape` has.
    pub fn kinds_of(self, shape: &ModelShape) -> Vec<UnitKind> {
        self.0.kinds.iter().copied().filter(|kind| shape.count(*kind) > 0).collect()
    }

    /// Of these, the ones that are measured where nothing is said: not those with very many units.
    pub fn usual_kinds_of(self, shape: &ModelShape) -> Vec<UnitKind> {
        self.kinds_of(shape).into_iter().filter(|kind| !kind.is_large()).collect()
    }

    /// Whether a deposit of it may hold that statistic of that kind of unit.
    pub fn may_yield(self, statistic: Statistic, kind: UnitKind) -> bool {
        self.0.statistics.contains(&statistic)
            && self.0.kinds.contains(&kind)
            && statistic.row().kinds.contains(&kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_agree_with_each_other() {
        for estimator in Estimator::ALL {
            let row = estimator.row();
            assert_eq!(Estimator::named(row.name), Some(*estimator));
            assert!(row.effect.is_none_or(|s| row.statistics.contains(&s)), "{estimator}");
            for statistic in row.statistics {
                let any = row.kinds.iter().any(|kind| estimator.may_yield(*statistic, *kind));
                assert!(any, "{estimator} never yields {statistic}");
            }
        }
    }

    #[test]
    fn every_score_of_an_ensemble_can_be_measured() {
        for kind in UnitKind::ALL {
            for statistic in kind.row().ensemble {
                let found = Estimator::yielding(*statistic, *kind);
                assert!(
                    found.is_some_and(|e| e.may_yield(*statistic, *kind)),
                    "{kind} {statistic}"
                );
            }
        }
    }

    #[test]
    fn every_way_to_rank_units_has_an_estimator() {
        for (statistic, method) in Statistic::methods() {
            let served = |kind: &&UnitKind| Estimator::yielding(statistic, **kind).is_some();
            assert!(UnitKind::ALL.iter().any(|kind| served(&kind)), "{}", method.name);
        }
    }
}

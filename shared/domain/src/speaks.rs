//! What a worker understands, by name: it is only asked for that.

use crate::{Distil, DistilLoss, Estimator, Part, Work};
use std::collections::BTreeSet;

/// The names that a worker's uspx knows. One that says nothing knows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Speaks {
    /// Kinds of job, as [`Work::kind`] has them.
    pub jobs: BTreeSet<String>,
    /// Estimators.
    pub estimators: BTreeSet<String>,
    /// Losses of a training, beside the usual one, which whoever trains knows.
    pub losses: BTreeSet<String>,
    /// Further ways of doing known jobs: `nf4` (a training on layers held in NF4), `answering` (labels of other answers
    /// than references, chosen among samples).
    pub ways: BTreeSet<String>,
}

/// A training on layers held in NF4.
const NF4: &str = "nf4";
/// Labels of other answers than references, chosen among samples.
const ANSWERING: &str = "answering";

impl Speaks {
    /// All that this build knows.
    pub fn here() -> Self {
        let owned =
            |names: &mut dyn Iterator<Item = &'static str>| names.map(str::to_owned).collect();
        Self {
            jobs: owned(&mut Work::<()>::KINDS.iter().copied()),
            estimators: owned(&mut Estimator::ALL.iter().map(|e| e.name())),
            losses: owned(&mut DistilLoss::ALL.iter().filter(|l| !l.is_usual()).map(|l| l.name())),
            ways: owned(&mut [NF4, ANSWERING].into_iter()),
        }
    }

    /// Whether it can be asked for this work.
    pub fn knows<P>(&self, work: &Work<P>) -> bool {
        let named = match work {
            Work::Estimate(job) => self.estimators.contains(job.estimator.name()),
            Work::Distil(Distil { recipe, .. }) | Work::Part(Part { recipe, .. }) => {
                let loss = recipe.loss;
                let held = !recipe.nf4 || self.ways.contains(NF4);
                held && (loss.is_usual() || self.losses.contains(loss.name()))
            }
            Work::Label(job) => job.answering.is_usual() || self.ways.contains(ANSWERING),
            _ => true,
        };
        named && self.jobs.contains(work.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answering, Baseline, DistilRecipe, Estimate, Label, Place};

    #[test]
    fn work_is_known_by_its_job_and_its_estimator() {
        let label = Work::Label(Label::of(vec![0]));
        let estimator = Estimator::TRACE;
        let trace = Work::Estimate(Estimate {
            prompts: vec![0],
            estimator,
            kinds: vec![],
            baseline: Baseline::Zero,
        });
        let here = Speaks::here();
        assert!(here.knows(&label) && here.knows(&trace));
        assert!(!Speaks::default().knows(&label));
        let answering = Answering { samples: 4, ..Answering::default() };
        let sampled = Work::Label(Label { answering, ..Label::of(vec![0]) });
        let older = Speaks { ways: [NF4.to_owned()].into(), ..Speaks::here() };
        assert!(here.knows(&sampled) && !older.knows(&sampled) && older.knows(&label));
        let mut older = Speaks::here();
        older.estimators.remove("trace");
        assert!(older.knows(&label) && !older.knows(&trace));
        let without = Speaks { jobs: ["label".to_owned()].into(), ..Speaks::here() };
        assert!(without.knows(&label) && !without.knows(&trace));
    }

    #[test]
    fn a_training_is_known_by_its_loss() {
        let by = |loss, nf4| {
            let recipe = DistilRecipe {
                rank: 1,
                alpha: 1.0,
                epochs: 1,
                learning_rate: 1.0,
                batch_tokens: 1,
                teacher_weight: 1.0,
                seed: 0,
                loss,
                nf4,
            };
            let (train, validation, rounds) = (vec![], vec![], vec![]);
            let part = Part { train, validation, recipe, rounds, steps: 1, place: Place::End };
            let alone = Distil { train: vec![], validation: vec![], recipe };
            [Work::<u8>::Distil(alone), Work::Part(part)]
        };
        let older = Speaks { losses: [].into(), ..Speaks::here() };
        for loss in DistilLoss::ALL {
            for work in by(*loss, false) {
                assert!(Speaks::here().knows(&work), "{loss}");
                assert_eq!(older.knows(&work), *loss == DistilLoss::HYBRID, "{loss}");
                assert!(!Speaks::default().knows(&work), "{loss}");
            }
        }
        let older = Speaks { ways: [].into(), ..Speaks::here() };
        for work in by(DistilLoss::HYBRID, true) {
            assert!(Speaks::here().knows(&work) && !older.knows(&work));
        }
    }
}

//! What a worker understands, by name: it is only asked for that.

use crate::{Estimator, Work};
use std::collections::BTreeSet;

/// The names that a worker's uspx knows. One that says nothing knows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Speaks {
    /// Kinds of job, as [`Work::kind`] has them.
    pub jobs: BTreeSet<String>,
    /// Estimators.
    pub estimators: BTreeSet<String>,
}

impl Speaks {
    /// All that this build knows.
    pub fn here() -> Self {
        let owned =
            |names: &mut dyn Iterator<Item = &'static str>| names.map(str::to_owned).collect();
        Self {
            jobs: owned(&mut Work::<()>::KINDS.iter().copied()),
            estimators: owned(&mut Estimator::ALL.iter().map(|e| e.name())),
        }
    }

    /// Whether it can be asked for this work.
    pub fn knows<P>(&self, work: &Work<P>) -> bool {
        let estimator =
            if let Work::Estimate(job) = work { Some(job.estimator.name()) } else { None };
        self.jobs.contains(work.kind())
            && estimator.is_none_or(|name| self.estimators.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Baseline, Estimate, Label};

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
        let mut older = Speaks::here();
        older.estimators.remove("trace");
        assert!(older.knows(&label) && !older.knows(&trace));
        let without = Speaks { jobs: ["label".to_owned()].into(), ..Speaks::here() };
        assert!(without.knows(&label) && !without.knows(&trace));
    }
}

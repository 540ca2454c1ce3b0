//! How long a stage still takes: an estimate that never grows, and that leaves out what was done
//! before it was looked at.

use std::time::Duration;
use uspx_colony::Stage;

/// Before so much time and progress nothing is foretold.
const LEAST_TIME: Duration = Duration::from_secs(2);
const LEAST_PART: f64 = 0.01;

/// The estimator, fed with time and progress.
#[derive(Debug, Default)]
pub(crate) struct Eta {
    /// The stage, and when it was first looked at, how far it was then.
    begun: Option<(Stage, Duration, f64)>,
    /// The furthest that it was seen.
    done: f64,
    told: Option<Duration>,
}

impl Eta {
    /// What is left of `stage` at a time (by any clock that only goes forward) at which the part
    /// `done` of it, 0 to 1, is done; none while that cannot be told.
    pub(crate) fn tell(&mut self, stage: Stage, at: Duration, done: f64) -> Option<Duration> {
        let (first, from) = match self.begun {
            Some((of, first, from)) if of == stage => (first, from),
            _ => {
                *self = Self { begun: Some((stage, at, done)), done, told: None };
                (at, done)
            }
        };
        self.done = self.done.max(done).min(1.0);
        let (time, part) = (at.saturating_sub(first), self.done - from);
        if time < LEAST_TIME || part < LEAST_PART {
            return self.told;
        }
        let left = time.mul_f64((1.0 - self.done) / part);
        self.told = Some(self.told.map_or(left, |told| told.min(left)));
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn steady_work_is_foretold_and_a_resume_leaves_out_what_it_skipped() {
        let mut eta = Eta::default();
        assert_eq!(eta.tell(Stage::Trace, seconds(100.0), 0.5), None, "half was done before");
        let left = eta.tell(Stage::Trace, seconds(110.0), 0.6).unwrap();
        assert!((left.as_secs_f64() - 40.0).abs() < 1e-6, "{left:?}");
        assert_eq!(eta.tell(Stage::Patch, seconds(111.0), 0.0), None, "another stage");
    }

    proptest! {
        /// Whatever the progress, what is left never grows within a stage, and at the end is none.
        #[test]
        fn what_is_left_never_grows(steps in prop::collection::vec((0.0f64..30.0, -0.1f64..0.3), 1..60)) {
            let (mut eta, mut at, mut done) = (Eta::default(), 0.0, 0.0f64);
            let mut before: Option<Duration> = None;
            for (time, part) in steps {
                at += time;
                done = (done + part).clamp(0.0, 1.0);
                let told = eta.tell(Stage::Explore, seconds(at), done);
                if let (Some(before), Some(told)) = (before, told) {
                    prop_assert!(told <= before, "{:?} after {:?}", told, before);
                }
                prop_assert!(before.is_none() || told.is_some(), "it is not forgotten");
                before = told;
            }
            if let Some(told) = eta.tell(Stage::Explore, seconds(at + 10.0), 1.0) {
                prop_assert_eq!(told, Duration::ZERO);
            }
        }
    }
}

//! How long work takes on this machine, from doing some of it: a job is begun, watched for a while
//! and ended, and what it has done by then says how long all of it takes.

use crate::error::JobError;
use crate::jobs;
use crate::open_models::OpenModels;
use crate::product::Inputs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use uspx_domain::Task;
use uspx_model::budget::Workload;
use uspx_model::{ModelError, Progress};

/// Seconds that the whole of `task` takes here, from at most `limit` of it (and the step that is
/// under way then). Its model is opened before, if it is not open.
///
/// # Errors
/// Whatever keeps the job from being done.
pub fn rehearse(
    task: &Task,
    models: &mut OpenModels,
    inputs: &Inputs,
    limit: Duration,
) -> Result<f64, JobError> {
    let (work, beside) = jobs::workload(&task.work);
    if matches!(work, Workload::Forward | Workload::Backward) {
        models.get_beside(task.model, work, beside)?;
    }
    let watch = Watch { start: Instant::now(), limit, seen: Mutex::default() };
    match jobs::run(task, models, inputs, &watch) {
        Ok(_) => Ok(watch.start.elapsed().as_secs_f64()),
        Err(JobError::Stopped) => Ok(watch.whole()),
        Err(error) => Err(error),
    }
}

/// Watches a job and ends it.
struct Watch {
    start: Instant,
    limit: Duration,
    seen: Mutex<Seen>,
}

/// The first and the last report with anything done: (seconds, steps), and the steps in all.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    first: Option<(f64, u64)>,
    last: (f64, u64),
    total: u64,
}

impl Seen {
    /// What comes before the first step (opening files, reading prompts) is done once, so the speed
    /// is that between the reports.
    fn whole(&self) -> f64 {
        let (first, (at, done)) = (self.first.unwrap_or(self.last), self.last);
        let rate = match done.saturating_sub(first.1) {
            0 => at / done.max(1) as f64,
            steps => (at - first.0) / steps as f64,
        };
        at + rate * self.total.saturating_sub(done) as f64
    }
}

impl Watch {
    fn whole(&self) -> f64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).whole()
    }
}

impl Progress for Watch {
    fn report(&self, done: u64, total: u64) -> uspx_model::Result<()> {
        if done == 0 {
            return Ok(());
        }
        let now = self.start.elapsed();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if done < seen.last.1 {
            // Another part of the work begins: what is still to come is told by its own steps.
            seen.first = None;
        }
        seen.first.get_or_insert((now.as_secs_f64(), done));
        (seen.last, seen.total) = ((now.as_secs_f64(), done), total);
        if now > self.limit && done < total { Err(ModelError::Stopped) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_the_first_step_is_counted_once() {
        let seen = Seen { first: Some((5.0, 10)), last: (7.0, 30), total: 100 };
        assert!((seen.whole() - 14.0).abs() < 1e-12);
        let once = Seen { first: Some((2.0, 20)), last: (2.0, 20), total: 100 };
        assert!((once.whole() - 10.0).abs() < 1e-12);
    }

    #[test]
    fn work_in_several_parts_is_told_by_the_one_under_way() {
        let watch = Watch {
            start: Instant::now(),
            limit: Duration::from_secs(600),
            seen: Mutex::default(),
        };
        for (done, total) in [(5, 10), (10, 10), (2, 40), (4, 40)] {
            watch.report(done, total).unwrap();
        }
        let seen = *watch.seen.lock().unwrap();
        assert_eq!((seen.first.unwrap().1, seen.last.1, seen.total), (2, 4, 40));
        assert!(seen.whole() >= seen.last.0);
    }

    #[test]
    fn a_job_ends_at_the_first_step_after_the_limit() {
        let watch = Watch { start: Instant::now(), limit: Duration::ZERO, seen: Mutex::default() };
        assert!(watch.report(0, 9).is_ok(), "nothing is known yet");
        assert!(matches!(watch.report(3, 9), Err(ModelError::Stopped)));
        assert!(watch.report(9, 9).is_ok(), "it is done");
    }
}

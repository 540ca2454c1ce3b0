//! A task's way through workers, and what is remembered of each worker.

use crate::{Blame, Cause, PlannedTask};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uspx_domain::{FailureKind, FailureReason, WorkerId};

/// A task that was planned, who was asked, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// The task.
    pub task: PlannedTask,
    /// Who was asked, in order.
    pub attempts: Vec<Attempt>,
    /// Whose answer was accepted.
    pub answered_by: Option<WorkerId>,
    /// Why no more attempts will be made.
    pub given_up: Option<String>,
}

/// One worker's try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Whose.
    pub worker: WorkerId,
    /// Which try, from 1.
    pub number: u32,
    /// Whether only to be compared.
    pub duplicate: bool,
    /// What came of it.
    pub fate: Fate,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing yet.
    Out,
    /// An answer.
    Answered,
    /// Nothing.
    Lost {
        /// What is to blame.
        blame: Blame,
    },
}

impl Ticket {
    /// A task that nobody was asked yet.
    pub fn new(task: PlannedTask) -> Self {
        Self { task, attempts: Vec::new(), answered_by: None, given_up: None }
    }

    /// Whether an answer was accepted.
    pub fn is_answered(&self) -> bool {
        self.answered_by.is_some()
    }

    /// Whether nothing more is waited for.
    pub fn is_settled(&self) -> bool {
        self.is_answered() || self.given_up.is_some()
    }

    /// Whether `worker` was ever asked.
    pub fn was_asked(&self, worker: &WorkerId) -> bool {
        self.attempts.iter().any(|a| a.worker == *worker)
    }

    /// Whether an attempt of `worker` is out.
    pub fn is_out_at(&self, worker: &WorkerId) -> bool {
        self.out().any(|a| a.worker == *worker)
    }

    /// Attempts that nothing came of yet.
    pub fn out(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|a| a.fate == Fate::Out)
    }

    /// Attempts that came to something, or still may.
    pub fn live(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|a| matches!(a.fate, Fate::Out | Fate::Answered))
    }

    /// Whether it went out to be compared, and an answer is still to come.
    pub fn is_being_compared(&self) -> bool {
        let is_out = self.given_up.is_none() && self.out().next().is_some();
        is_out && self.live().any(|a| a.duplicate)
    }

    /// Attempts that count against the task.
    pub fn failures(&self) -> u32 {
        self.lost(Blame::counts).count() as u32
    }

    /// The workers whose attempts count against the task.
    pub fn failed_at(&self) -> BTreeSet<&WorkerId> {
        self.lost(Blame::counts).collect()
    }

    /// The workers that say that the task itself cannot be done.
    pub fn condemned_by(&self) -> BTreeSet<&WorkerId> {
        self.lost(|blame| blame == Blame::Task).collect()
    }

    /// Whose attempts came to nothing with such a blame; those only to be compared do not count.
    fn lost(&self, such: impl Fn(Blame) -> bool) -> impl Iterator<Item = &WorkerId> {
        let lost = move |a: &&Attempt| {
            !a.duplicate && matches!(a.fate, Fate::Lost { blame } if such(blame))
        };
        self.attempts.iter().filter(lost).map(|a| &a.worker)
    }

    /// Settles the worker's attempt that is out, or else its latest.
    pub(crate) fn set_fate(&mut self, worker: &WorkerId, fate: Fate) {
        let out = self.attempts.iter().rposition(|a| a.worker == *worker && a.fate == Fate::Out);
        let at = out.or_else(|| self.attempts.iter().rposition(|a| a.worker == *worker));
        if let Some(attempt) = at.and_then(|at| self.attempts.get_mut(at)) {
            attempt.fate = fate;
        }
    }
}

/// What is remembered of a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Answers accepted.
    pub answered: u32,
    /// Comparisons in which it agreed.
    pub agreed: u32,
    /// Comparisons in which two others agreed against it.
    #[serde(default, skip_serializing_if = "is_none")]
    pub outvoted: u32,
    /// Answers that failed a check.
    pub refused: u32,
    /// Attempts that it failed or let lapse.
    pub failed: u32,
    /// Why it gets no more work.
    pub quarantined: Option<String>,
}

/// What accounts from before votes were counted have.
fn is_none(votes: &u32) -> bool {
    *votes == 0
}

impl Account {
    /// Whether others have vouched for it: they agreed with it, and more often than against it.
    pub fn is_proven(&self) -> bool {
        self.agreed > 2 * self.outvoted
    }

    pub(crate) fn charge(&mut self, cause: &Cause) {
        match cause {
            Cause::Refused { .. } => self.refused += 1,
            // An older uspx is not a sick machine.
            Cause::Failed(failure)
                if failure.kind == FailureKind::NotSpoken
                    || failure.reason == FailureReason::Stopped => {}
            Cause::Failed(_) | Cause::LeaseLost | Cause::DeadLetter => self.failed += 1,
            Cause::WorkerLost | Cause::Quarantined | Cause::Moved => {}
        }
    }
}

//! An answer comes in: checked, then accepted, compared or refused. The first acceptance fixes a
//! task's answer.

use super::{Command, Turn, Verdict};
use crate::check::check;
use crate::compare::compare;
use crate::state::Fate;
use crate::{Cause, Record};
use uspx_domain::{Answer, Failure, Outcome, Refusal, TaskId, WorkerId};

/// An answer agrees with one of several that differ.
fn settled(task: TaskId, worker: &WorkerId, said: &[(WorkerId, Option<bool>)]) -> Record {
    let those = |such: bool| {
        said.iter()
            .filter(move |(_, agreed)| (*agreed == Some(true)) == such)
            .map(|(w, _)| w.clone())
    };
    let right = those(true).chain([worker.clone()]).collect();
    Record::Settled { task, worker: worker.clone(), right, wrong: those(false).collect() }
}

impl Turn<'_> {
    pub(super) fn answer(&mut self, sender: &WorkerId, answer: Answer) -> Verdict {
        if self.state().accounts.get(sender).is_some_and(|a| a.quarantined.is_some()) {
            return Verdict::Quarantined;
        }
        if *sender != answer.worker {
            return Verdict::Refused(Refusal::NotAsked);
        }
        let Some(campaign) = &self.state().campaign else {
            return Verdict::Refused(Refusal::UnknownTask);
        };
        let ticket = self.state().tickets.get(&answer.task);
        if let Err(refusal) = check(campaign, ticket, &answer) {
            return self.refuse(&answer, refusal);
        }
        if let Outcome::Failed(failure) = &answer.outcome {
            return self.failed(&answer, *failure);
        }
        match ticket.and_then(|t| t.answered_by.clone()) {
            None => self.accept(answer),
            Some(first) if first == answer.worker => Verdict::Repeated,
            Some(_) => self.compare(&answer),
        }
    }

    fn refuse(&mut self, answer: &Answer, refusal: Refusal) -> Verdict {
        // Late answers are nobody's fault, and strangers get no room in the ledger.
        if refusal.is_fault() && refusal != Refusal::NotAsked {
            let cause = Cause::Refused { reason: refusal.to_string() };
            if self.has_answered(answer.task, &answer.worker) {
                return Verdict::Repeated;
            }
            self.lose(answer.task, &answer.worker, cause);
        }
        Verdict::Refused(refusal)
    }

    fn failed(&mut self, answer: &Answer, failure: Failure) -> Verdict {
        if self.state().tickets.get(&answer.task).is_some_and(|t| t.is_out_at(&answer.worker)) {
            self.lose(answer.task, &answer.worker, Cause::Failed(failure));
        }
        Verdict::Failed
    }

    fn accept(&mut self, answer: Answer) -> Verdict {
        let (task, worker) = (answer.task, answer.worker.clone());
        self.record(Record::Accepted { answer: Box::new(answer) });
        self.colony.well(&worker);
        let ticket = self.state().tickets.get(&task).filter(|t| !t.is_being_compared());
        let others = ticket.into_iter().flat_map(|t| t.out()).filter(|a| a.worker != worker);
        let others: Vec<WorkerId> = others.map(|a| a.worker.clone()).collect();
        for worker in others {
            self.command(Command::Withdraw { task, worker });
        }
        Verdict::Accepted
    }

    /// A later answer of another worker: recorded, never merged.
    fn compare(&mut self, answer: &Answer) -> Verdict {
        let (task, worker) = (answer.task, answer.worker.clone());
        if self.has_answered(task, &worker) {
            return Verdict::Repeated;
        }
        let Some(campaign) = &self.state().campaign else {
            return Verdict::Refused(Refusal::UnknownTask);
        };
        let said: Vec<(WorkerId, Option<bool>)> = self
            .state()
            .said(task)
            .iter()
            .map(|other| (other.worker.clone(), compare(other, answer, &campaign.trust)))
            .collect();
        let agreed = said.first().and_then(|(_, agreed)| *agreed);
        let is_alone = said.iter().all(|(_, agreed)| *agreed == Some(false));
        self.record(match (said.len(), agreed) {
            (_, None) | (1, Some(true)) => {
                Record::Compared { task, worker: worker.clone(), agreed }
            }
            _ if is_alone => Record::Disputed { answer: Box::new(answer.clone()) },
            _ => settled(task, &worker, &said),
        });
        self.suspect(&worker);
        said.iter().for_each(|(other, _)| self.suspect(other));
        Verdict::Compared(agreed)
    }

    fn has_answered(&self, task: TaskId, worker: &WorkerId) -> bool {
        let ticket = self.state().tickets.get(&task);
        ticket.is_some_and(|t| {
            t.attempts.iter().any(|a| a.worker == *worker && a.fate == Fate::Answered)
        })
    }
}

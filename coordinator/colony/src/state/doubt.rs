//! Answers that say otherwise than others to the same task, and what is taken back of a worker that nobody believes.

use super::{Attempt, Fate, State};
use crate::{Blame, Stage};
use std::collections::BTreeSet;
use uspx_domain::{Answer, TaskId, WorkerId};

impl State {
    /// All answers to a task that are at hand, the accepted one first.
    pub(crate) fn said(&self, task: TaskId) -> Vec<Answer> {
        let accepted = self.pending.get(&task).or_else(|| self.witnesses.get(&task).cloned());
        let others = self.disputes.get(&task).into_iter().flatten().cloned();
        accepted.into_iter().chain(others).collect()
    }

    /// Others said the same as these.
    pub(super) fn vouch<'a>(&mut self, workers: impl IntoIterator<Item = &'a WorkerId>) {
        for worker in workers {
            self.accounts.entry(worker.clone()).or_default().agreed += 1;
        }
    }

    pub(super) fn dispute(&mut self, answer: &Answer) {
        let Some(ticket) = self.tickets.get_mut(&answer.task) else { return };
        ticket.set_fate(&answer.worker, Fate::Answered);
        self.disputes.entry(answer.task).or_default().push(answer.clone());
    }

    pub(super) fn settle(
        &mut self,
        task: TaskId,
        worker: &WorkerId,
        right: &BTreeSet<WorkerId>,
        wrong: &BTreeSet<WorkerId>,
    ) {
        let others = self.disputes.remove(&task).unwrap_or_default();
        self.vouch(right);
        for worker in wrong {
            self.accounts.entry(worker.clone()).or_default().outvoted += 1;
        }
        let Some(ticket) = self.tickets.get_mut(&task) else { return };
        ticket.set_fate(worker, Fate::Answered);
        let stands = ticket.answered_by.as_ref().is_some_and(|first| right.contains(first));
        let better = others.into_iter().find(|other| right.contains(&other.worker));
        // What an earlier epoch accepted has acted.
        if let (false, Some(better), true) = (stands, better, self.pending.contains(&task)) {
            ticket.answered_by = Some(better.worker.clone());
            self.pending.insert(better);
        }
    }

    /// Forgets what a worker said, as far as it is known of which worker it is: what has not acted yet, and what is kept
    /// prompt by prompt. In sums over prompts it evaporates.
    pub(super) fn retract(&mut self, worker: &WorkerId) {
        let theirs = |answer: &Answer| answer.worker == *worker;
        let pending: Vec<TaskId> =
            self.pending.iter().filter(|(_, a)| theirs(a.bare())).map(|(id, _)| id).collect();
        for id in pending {
            self.pending.remove(&id);
            self.disputes.remove(&id);
            if let Some(ticket) = self.tickets.get_mut(&id) {
                // What was out beside an accepted answer was withdrawn, but for what was to be compared with it.
                let is_wanted = ticket.is_being_compared();
                let lost =
                    |a: &&mut Attempt| a.worker == *worker || (a.fate == Fate::Out && !is_wanted);
                for attempt in ticket.attempts.iter_mut().filter(lost) {
                    attempt.fate = Fate::Lost { blame: Blame::Nobody };
                }
                ticket.answered_by = None;
            }
        }
        self.disputes.values_mut().for_each(|others| others.retain(|a| !theirs(a)));
        self.disputes.retain(|_, others| !others.is_empty());
        let gone = self.by_prompt.retract(worker);
        if !gone.any {
            return;
        }
        for (statistic, unit, sums) in self.by_prompt.sums(|_| 1) {
            self.trails.replace(statistic, unit, sums);
        }
        for (stage, gone) in [(Stage::Trace, gone.traced), (Stage::Patch, gone.patched)] {
            if let Some(asked) = self.asked.get_mut(&stage) {
                asked.retain(|at| !gone.contains(at));
            }
        }
    }
}

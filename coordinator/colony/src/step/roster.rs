//! The workers heard of, and what is done where none of them speaks a task. Nothing here is in the
//! ledger.

use super::{Colony, Command, Turn};
use crate::plan::{Able, Measured, Speeds};
use crate::{Ending, PlannedTask, Record, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Fingerprint, Speaks, Speed, TaskId, WorkerId};

/// Kinds of work, each on one model, that a worker's speed is kept of.
const MOST_MEASURED: usize = 64;

/// Why a task was given up that a person abandoned.
const ABANDONED: &str = "abandoned by a person's word";

/// A worker that was heard of.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// What it may be asked for.
    pub speaks: Speaks,
    /// The models on its disk.
    pub holds: BTreeSet<Fingerprint>,
    /// How its machine has failed lately.
    pub strikes: Strikes,
}

/// Failures of a machine one after another, and whether it rests for them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Strikes {
    count: u32,
    rests: bool,
}

impl Strikes {
    /// Whether it gets no task just now.
    pub fn is_resting(self) -> bool {
        self.rests
    }
}

impl Member {
    /// Whether it knows the task's job and estimator, and holds its model.
    pub fn is_able(&self, task: &PlannedTask) -> bool {
        self.speaks.knows(&task.work) && self.holds.contains(&task.model)
    }

    /// As plans see it.
    fn view<'a>(&'a self, measured: Option<&'a Measured>) -> Able<'a> {
        let (speaks, holds) = (&self.speaks, &self.holds);
        Able { speaks, holds, rests: self.strikes.is_resting(), measured }
    }
}

impl Colony {
    /// Tasks that wait although workers are here: none of these speaks them.
    pub fn unspoken(&self) -> Vec<TaskId> {
        let spoken =
            |task: &PlannedTask| self.trusted().any(|(_, member)| member.speaks.knows(&task.work));
        let waits = |t: &&Ticket| !t.is_settled() && t.out().next().is_none();
        let waiting = self.state.tickets.values().filter(waits);
        let unspoken = waiting.filter(|t| self.trusted().next().is_some() && !spoken(&t.task));
        unspoken.map(|t| t.task.id).collect()
    }

    /// A worker was heard of. News of what it holds does not end its rest.
    pub(super) fn hear(&mut self, worker: WorkerId, speaks: Speaks, holds: BTreeSet<Fingerprint>) {
        let strikes = self.roster.get(&worker).map(|m| m.strikes).unwrap_or_default();
        self.roster.insert(worker.clone(), Member { speaks, holds, strikes });
        self.rank(&worker);
    }

    /// A worker is gone.
    pub(super) fn forget(&mut self, worker: &WorkerId) {
        self.roster.remove(worker);
        self.measured.remove(worker);
        self.rank(worker);
    }

    fn rank(&mut self, worker: &WorkerId) {
        self.board.rank(worker, (&self.state, &self.roster));
    }

    /// A worker has said how fast it was. It may say so of few kinds of work: others are passed
    /// over.
    pub(super) fn measure(&mut self, worker: WorkerId, speed: Speed) {
        let known = self.measured.entry(worker).or_default();
        let kind = (speed.model, speed.work.clone());
        if known.contains_key(&kind) || known.len() < MOST_MEASURED {
            known.insert(kind, speed);
        }
    }

    /// The workers that may be asked, and what they have said of their speed.
    pub(super) fn speeds(&self) -> Speeds<'_> {
        Speeds(self.trusted().map(|(id, member)| member.view(self.measured.get(id))).collect())
    }

    /// A worker's rest is over; one more failure makes the next one longer.
    pub(super) fn rested(&mut self, worker: &WorkerId) {
        if let Some(member) = self.roster.get_mut(worker) {
            member.strikes.rests = false;
            self.rank(worker);
        }
    }

    /// A worker has done a task: its machine is well.
    pub(super) fn well(&mut self, worker: &WorkerId) {
        if let Some(member) = self.roster.get_mut(worker) {
            member.strikes = Strikes::default();
            self.rank(worker);
        }
    }

    /// Workers that get no task just now, since their machines failed, with how often.
    pub fn resting(&self) -> BTreeMap<WorkerId, u32> {
        let resting = self.roster.iter().filter(|(_, m)| m.strikes.rests);
        resting.map(|(w, m)| (w.clone(), m.strikes.count)).collect()
    }

    /// The workers heard of, without those in quarantine.
    pub(super) fn trusted(&self) -> impl Iterator<Item = (&WorkerId, &Member)> {
        let quarantined =
            |id: &WorkerId| self.state.accounts.get(id).is_some_and(|a| a.quarantined.is_some());
        self.roster.iter().filter(move |(id, _)| !quarantined(id))
    }
}

impl Turn<'_> {
    /// A worker whose machine fails gets nothing for a while: what it fails, others do.
    pub(super) fn rest(&mut self, worker: &WorkerId) {
        let Some(member) = self.colony.roster.get_mut(worker) else { return };
        member.strikes.count = member.strikes.count.saturating_add(1);
        let strikes = member.strikes.count;
        if !std::mem::replace(&mut member.strikes.rests, true) {
            self.colony.rank(worker);
            self.command(Command::Rest { worker: worker.clone(), strikes });
        }
    }

    /// A person's word: rests end, and what is to be published is tried now.
    pub(super) fn retry(&mut self) {
        self.colony.roster.values_mut().for_each(|m| m.strikes = Strikes::default());
        self.colony.look_anew();
        if let Some(order) = self.state().order.clone().filter(|o| self.is_due(o.release)) {
            self.command(Command::PublishRelease(Box::new(order)));
        }
    }

    /// A person's word: tasks that wait are given up, and what is to be published never is.
    pub(super) fn abandon(&mut self) {
        let waits = |t: &&Ticket| !t.is_settled() && t.out().next().is_none();
        let waiting = self.state().tickets.values().filter(waits).map(|t| t.task.id);
        for task in waiting.collect::<Vec<_>>() {
            self.record(Record::GivenUp { task, reason: ABANDONED.to_owned() });
        }
        if self.state().order.as_ref().is_some_and(|o| self.is_due(o.release)) {
            self.end(Ending::Failed(format!("the release is {ABANDONED}")));
        }
    }

    /// A campaign must not wait for ever for a worker that knows its tasks.
    pub(super) fn give_up_unspoken(&mut self) {
        for task in self.colony.unspoken() {
            if let Some(ticket) = self.state().tickets.get(&task) {
                let reason = unspoken(&ticket.task);
                self.record(Record::GivenUp { task, reason });
            }
        }
    }
}

/// Why a task was given up that is of a newer uspx than all workers.
pub(super) fn unspoken(task: &PlannedTask) -> String {
    format!(
        "no worker here speaks {} tasks as this coordinator writes them: upgrade uspx on them",
        task.work.name()
    )
}

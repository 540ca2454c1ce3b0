//! The workers heard of, and what is done where none of them speaks a task. Nothing here is in the
//! ledger.

use super::{Colony, Turn};
use crate::{PlannedTask, Record, Ticket};
use std::collections::BTreeSet;
use uspx_domain::{Fingerprint, Speaks, TaskId, WorkerId};

/// A worker that was heard of.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// What it may be asked for.
    pub speaks: Speaks,
    /// The models on its disk.
    pub holds: BTreeSet<Fingerprint>,
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

    /// The workers heard of, without those in quarantine.
    pub(super) fn trusted(&self) -> impl Iterator<Item = (&WorkerId, &Member)> {
        let quarantined =
            |id: &WorkerId| self.state.accounts.get(id).is_some_and(|a| a.quarantined.is_some());
        self.roster.iter().filter(move |(id, _)| !quarantined(id))
    }
}

impl Turn<'_> {
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

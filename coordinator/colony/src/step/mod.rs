//! The driver: an event in, records and commands out.
//!
//! The service appends a [`Step`]'s records to the ledger *before* it carries out its commands. The
//! records are folded here already, so where they cannot be appended the colony must be dropped and
//! built again from the ledger.

mod amend;
mod answers;
mod board;
mod event;
mod progress;
mod roster;
mod students;

use crate::compare::suspicion;
use crate::plan::Measured;
use crate::{Blame, Cause, Ending, Record, State, Ticket};
pub use amend::Amending;
use amend::Wanted;
use board::{Board, Roster};
pub use event::{Command, Event, Step, Verdict};
use roster::{Member, unspoken};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{FailureKind, ReleaseNumber, TaskId, WorkerId};

/// The colony's state and the workers heard of. Only the state is in the ledger.
#[derive(Debug, Clone, Default)]
pub struct Colony {
    state: State,
    roster: Roster,
    board: Board,
    /// What the campaign is to go on under, once its open batch is closed.
    wanted: Option<Wanted>,
    /// What workers have said of their speed; it sizes tasks.
    measured: BTreeMap<WorkerId, Measured>,
}

impl Colony {
    /// A colony that knows `state`, from a snapshot or a ledger; say [`Event::Started`] to it next.
    pub fn resume(state: State) -> Self {
        let board = Board::of(&state, &Roster::new());
        Self { state, board, ..Self::default() }
    }

    /// Reads the board anew, after a change of the state that no record was folded for.
    fn look_anew(&mut self) {
        self.board = Board::of(&self.state, &self.roster);
    }

    /// What it knows.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Workers that hold an unanswered task; after a restart, those never heard of again must be
    /// declared lost.
    pub fn waiting_on(&self) -> BTreeSet<WorkerId> {
        let waits = self.state.tickets.values().filter(|t| self.state.is_waited_for(t));
        waits.flat_map(|t| t.out().map(|a| a.worker.clone())).collect()
    }

    /// Takes an event.
    pub fn step(&mut self, event: Event) -> Step {
        let mut turn = Turn::new(self);
        turn.take(event);
        turn.advance();
        let step = turn.step;
        debug_assert_eq!(self.board, Board::of(&self.state, &self.roster));
        step
    }
}

/// One event being worked through.
struct Turn<'a> {
    colony: &'a mut Colony,
    step: Step,
}

impl<'a> Turn<'a> {
    fn new(colony: &'a mut Colony) -> Self {
        Self { colony, step: Step::default() }
    }

    fn state(&self) -> &State {
        &self.colony.state
    }

    fn record(&mut self, record: Record) {
        let Colony { board, state, roster, .. } = &mut *self.colony;
        board.follow(&record, state, roster);
        self.step.records.push(record);
    }

    fn command(&mut self, command: Command) {
        self.step.commands.push(command);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started => self.restart(),
            Event::WorkerSeen { worker, speaks, holds } => {
                self.colony.hear(worker, speaks, holds.into_iter().collect());
            }
            Event::WorkerMeasured { worker, speed } => self.colony.measure(worker, speed),
            Event::WorkerLost { worker } => {
                self.colony.forget(&worker);
                self.lose_all(&worker, &Cause::WorkerLost);
            }
            Event::AnswerArrived { worker, answer } => {
                self.step.verdict = Some(self.answer(&worker, *answer))
            }
            Event::LeaseLost { task, worker } => self.lapse(task, &worker, Cause::LeaseLost),
            Event::DeadLetter { task, worker } => self.lapse(task, &worker, Cause::DeadLetter),
            Event::WorkerRested { worker } => self.colony.rested(&worker),
            Event::NobodySpeaks => self.give_up_unspoken(),
            Event::ReleasePublished { release } => self.published(release),
            Event::ReleaseFailed { release, reason } => self.release_failed(release, reason),
            Event::Retry => self.retry(),
            Event::Abandon => self.abandon(),
            Event::Build | Event::Hold | Event::Resume | Event::Day { .. } => {
                self.of_students(&event)
            }
            Event::Tick => {}
        }
    }

    /// Says again what a crash may have kept from being said. Everything said twice is named alike.
    fn restart(&mut self) {
        let waits = |t: &&Ticket| self.state().is_waited_for(t);
        let again: Vec<Command> = self
            .state()
            .tickets
            .values()
            .filter(waits)
            .flat_map(|t| t.out().map(|a| (t.task.clone(), a.worker.clone(), a.number)))
            .map(|(task, worker, attempt)| Command::Issue { task: Box::new(task), worker, attempt })
            .collect();
        self.step.commands.extend(again);
        let mask = self.state().mask.clone().map(|m| Command::PublishMask(Box::new(m)));
        self.step.commands.extend(mask);
        let last = match (&self.state().ending, self.state().publishing()) {
            (Some(ending), _) => Some(Command::Finish(ending.clone())),
            (None, Some(order)) => Some(Command::PublishRelease(Box::new(order.clone()))),
            (None, None) => None,
        };
        self.step.commands.extend(last);
    }

    /// An attempt's lease or deliveries ran out.
    fn lapse(&mut self, task: TaskId, worker: &WorkerId, cause: Cause) {
        if self.state().tickets.get(&task).is_some_and(|t| t.is_out_at(worker)) {
            self.lose(task, worker, cause);
            self.command(Command::Withdraw { task, worker: worker.clone() });
        }
    }

    /// Everything that is out at a worker comes to nothing.
    fn lose_all(&mut self, worker: &WorkerId, cause: &Cause) {
        let out =
            self.state().tickets.iter().filter(|(_, t)| t.is_out_at(worker)).map(|(id, _)| *id);
        for task in out.collect::<Vec<_>>() {
            self.lose(task, worker, cause.clone());
            self.command(Command::Withdraw { task, worker: worker.clone() });
        }
    }

    /// Records a lost attempt, and what follows for its task and its worker.
    fn lose(&mut self, task: TaskId, worker: &WorkerId, cause: Cause) {
        self.record(Record::Lost { task, worker: worker.clone(), cause: cause.clone() });
        if let Some(reason) = self.hopeless(task, &cause) {
            self.record(Record::GivenUp { task, reason });
        }
        if cause.blame() == Blame::Machine {
            self.rest(worker);
        }
        self.suspect(worker);
    }

    /// Why no more attempts are to be made at a task.
    fn hopeless(&self, task: TaskId, cause: &Cause) -> Option<String> {
        let ticket =
            self.state().tickets.get(&task).filter(|t| !t.is_settled() && cause.counts())?;
        if let (Cause::Failed(failure), 2..) = (cause, ticket.condemned_by().len()) {
            return Some(format!("two workers say: {}", failure.reason));
        }
        let tries = self.state().campaign.as_ref()?.trust.attempts;
        let spent = ticket.failures() >= tries;
        match cause {
            Cause::Failed(failure) if spent && failure.kind == FailureKind::NotSpoken => {
                Some(unspoken(&ticket.task))
            }
            _ if spent && self.nobody_else_can(ticket) => {
                Some(format!("{tries} attempts failed, the last: {cause}"))
            }
            _ => None,
        }
    }

    /// Whether no worker is left that could show that the task can be done: one machine's fault
    /// must not end a task that another can do.
    fn nobody_else_can(&self, ticket: &Ticket) -> bool {
        let failed = ticket.failed_at();
        let able = |member: &Member| member.is_able(&ticket.task);
        failed.len() > 1 || !self.colony.trusted().any(|(w, m)| !failed.contains(w) && able(m))
    }

    /// Quarantines a worker that has earned it.
    fn suspect(&mut self, worker: &WorkerId) {
        let Some(campaign) = &self.state().campaign else { return };
        if let Some(reason) = suspicion(self.state(), worker, &campaign.trust) {
            self.record(Record::Quarantined { worker: worker.clone(), reason });
            self.lose_all(worker, &Cause::Quarantined);
            if self.state().accounts.get(worker).is_some_and(|a| a.outvoted > 0) {
                self.record(Record::Retracted { worker: worker.clone() });
            }
        }
    }

    fn is_due(&self, release: ReleaseNumber) -> bool {
        self.state().publishing().is_some_and(|o| o.release == release)
    }

    fn published(&mut self, release: ReleaseNumber) {
        if self.is_due(release) {
            self.record(Record::Published { release });
            self.command(Command::Finish(Ending::Published(release)));
        }
    }

    fn release_failed(&mut self, release: ReleaseNumber, reason: String) {
        if self.is_due(release) {
            self.end(Ending::Failed(reason));
        }
    }

    fn end(&mut self, ending: Ending) {
        self.record(Record::Ended { ending: ending.clone() });
        self.command(Command::Finish(ending));
    }
}

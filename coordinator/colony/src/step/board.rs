//! What is open and who has free hands: read off the state and the roster once, and kept up with record by record, so
//! that what an answer sets going costs the same whether ten tasks are open or ten thousand.
//!
//! Nothing of it is more than the state and the roster say: [`Board::of`] is the same board read anew.

use super::roster::Member;
use crate::{Dice, PlannedTask, Record, State, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{TaskId, WorkerId};

/// A task of the open epoch, in the order of the plan.
pub(super) type Place = (u32, TaskId);

/// A worker that may be asked, in the order in which workers are: what it holds unanswered, what it failed, its name.
pub(super) type Hand = (u32, u32, WorkerId);

/// The workers heard of.
pub(super) type Roster = BTreeMap<WorkerId, Member>;

/// The open epoch's tasks by what is to be done about them, and the workers by what they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Board {
    /// Nobody is at work on these.
    pub waiting: BTreeSet<Place>,
    /// One worker is, not only to be compared.
    pub alone: BTreeSet<Place>,
    /// These are to go out a second time, as far as the campaign's share of such tasks goes.
    pub doubles: BTreeSet<Place>,
    /// Tasks that are waited for.
    unsettled: usize,
    /// How many tasks each worker holds and has not answered, those apart that another has answered meanwhile.
    held: BTreeMap<WorkerId, u32>,
    /// Workers that hold more than one.
    crowded: BTreeSet<WorkerId>,
    /// Trusted workers that do not rest.
    pub hands: BTreeSet<Hand>,
    /// What those stand under there.
    ranks: BTreeMap<WorkerId, (u32, u32)>,
}

impl Board {
    /// The board as it is.
    pub fn of(state: &State, roster: &Roster) -> Self {
        let mut board = Self::default();
        for ticket in state.tickets.values() {
            board.put(state, ticket);
        }
        let workers: Vec<WorkerId> = board.held.keys().chain(roster.keys()).cloned().collect();
        workers.iter().for_each(|worker| board.rank(worker, (state, roster)));
        board
    }

    /// Whether nothing of the open epoch is waited for.
    pub fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// How many unanswered tasks a worker holds.
    pub fn held(&self, worker: &WorkerId) -> u32 {
        self.held.get(worker).copied().unwrap_or(0)
    }

    /// Whether some worker holds a task that waits behind another.
    pub fn is_crowded(&self) -> bool {
        !self.crowded.is_empty()
    }

    /// Workers that hold fewer than so many tasks, in the order in which they are asked.
    pub fn free(&self, ahead: u32) -> impl Iterator<Item = &WorkerId> {
        self.hands.iter().take_while(move |hand| hand.0 < ahead).map(|(_, _, worker)| worker)
    }

    /// Folds a record into the state, and follows it.
    pub fn follow(&mut self, record: &Record, state: &mut State, roster: &Roster) {
        let Some((task, worker)) = touched(record) else {
            state.fold(record);
            *self = Self::of(state, roster);
            return;
        };
        let before = state.tickets.get(&task).map(|t| self.lift(state, t)).unwrap_or_default();
        state.fold(record);
        let after = state.tickets.get(&task).map(|t| self.put(state, t)).unwrap_or_default();
        let changed = before.into_iter().chain(after).chain(worker.cloned());
        for worker in changed.collect::<BTreeSet<_>>() {
            self.rank(&worker, (state, roster));
        }
    }

    /// Places a worker where it stands now.
    pub fn rank(&mut self, worker: &WorkerId, (state, roster): (&State, &Roster)) {
        if let Some((held, failures)) = self.ranks.remove(worker) {
            self.hands.remove(&(held, failures, worker.clone()));
        }
        let held = self.held(worker);
        match held > 1 {
            true => drop(self.crowded.insert(worker.clone())),
            false => drop(self.crowded.remove(worker)),
        }
        let account = state.accounts.get(worker);
        let is_trusted = account.is_none_or(|a| a.quarantined.is_none());
        if is_trusted && roster.get(worker).is_some_and(|m| !m.strikes.is_resting()) {
            let failures = account.map_or(0, |a| a.failed + a.refused);
            self.ranks.insert(worker.clone(), (held, failures));
            self.hands.insert((held, failures, worker.clone()));
        }
    }

    /// Takes a ticket in; who holds it.
    fn put(&mut self, state: &State, ticket: &Ticket) -> Vec<WorkerId> {
        let (lists, holders) = (self.lists(state, ticket), holders(ticket));
        for (list, is_on) in lists {
            if is_on {
                list.insert(place(ticket));
            }
        }
        self.unsettled += usize::from(is_open(state, ticket));
        for worker in &holders {
            *self.held.entry(worker.clone()).or_default() += 1;
        }
        holders
    }

    /// Takes a ticket out; who held it.
    fn lift(&mut self, state: &State, ticket: &Ticket) -> Vec<WorkerId> {
        for (list, _) in self.lists(state, ticket) {
            list.remove(&place(ticket));
        }
        self.unsettled -= usize::from(is_open(state, ticket));
        let holders = holders(ticket);
        for worker in &holders {
            if let Some(held) = self.held.get_mut(worker) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(worker);
                }
            }
        }
        holders
    }

    /// The lists, and whether a ticket belongs on each.
    fn lists(&mut self, state: &State, ticket: &Ticket) -> [(&mut BTreeSet<Place>, bool); 3] {
        let is_open = is_open(state, ticket);
        let mut out = ticket.out();
        let (first, second) = (out.next(), out.next());
        let is_alone = second.is_none() && first.is_some_and(|a| !a.duplicate);
        [
            (&mut self.waiting, is_open && first.is_none()),
            (&mut self.alone, is_open && is_alone),
            (&mut self.doubles, is_open && is_to_be_compared(state, ticket)),
        ]
    }
}

/// The task that a record is about, and the worker; none where it may change the whole board.
fn touched(record: &Record) -> Option<(TaskId, Option<&WorkerId>)> {
    match record {
        Record::Issued { task, worker, .. }
        | Record::Compared { task, worker, .. }
        | Record::Lost { task, worker, .. } => Some((*task, Some(worker))),
        Record::Accepted { answer } => Some((answer.task, Some(&answer.worker))),
        Record::GivenUp { task, .. } => Some((*task, None)),
        _ => None,
    }
}

fn place(ticket: &Ticket) -> Place {
    (ticket.task.index, ticket.task.id)
}

/// Whether the open epoch waits for it.
fn is_open(state: &State, ticket: &Ticket) -> bool {
    ticket.task.epoch == state.epoch && !ticket.is_settled()
}

/// Who holds a task and has not answered, while that is still wanted.
fn holders(ticket: &Ticket) -> Vec<WorkerId> {
    let out = ticket.out().filter(|a| a.duplicate || !ticket.is_settled());
    out.map(|a| a.worker.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether a task that has just gone out goes out a second time: a seeded draw.
fn is_to_be_compared(state: &State, ticket: &Ticket) -> bool {
    let Some(campaign) = &state.campaign else { return false };
    let PlannedTask { id, work, .. } = &ticket.task;
    let once = ticket.attempts.len() == 1 && ticket.out().count() == 1;
    let share = campaign.trust.duplicates.to_f64();
    let drawn = || Dice::new(campaign.seed, &id.to_string(), 0).unit() < 2.0 * share;
    once && work.job().is_comparable() && drawn()
}

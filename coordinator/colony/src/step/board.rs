//! What is open and who has free hands: read off the state and the roster once, and kept up with record by record, so
//! that what an answer sets going costs the same whether ten tasks are open or ten thousand.
//!
//! Nothing of it is more than the state and the roster say: [`Board::of`] is the same board read anew.

use super::roster::Member;
use crate::state::Account;
use crate::{Dice, PlannedTask, Record, State, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{TaskId, WorkerId};

/// Answers to one task that differ, beyond which no other is asked for.
const OPINIONS: usize = 7;
/// Of the campaign's share of tasks that go out twice, the part that does so whoever has them: a worker that others
/// vouched for may go wrong later.
const WATCHED: f64 = 0.5;

/// A task of the open epoch, in the order of the plan.
pub(super) type Place = (u32, TaskId);

/// A worker that may be asked, in the order in which workers are: what it holds unanswered, what it failed, its name.
pub(super) type Hand = (u32, u32, WorkerId);

/// Tasks by worker, and a worker.
type ByWorker<'l, 'w> = (&'l mut BTreeMap<WorkerId, BTreeSet<Place>>, Option<&'w WorkerId>);

/// The workers heard of.
pub(super) type Roster = BTreeMap<WorkerId, Member>;

/// The open epoch's tasks by what is to be done about them, and the workers by what they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Board {
    /// Nobody is at work on these.
    pub waiting: BTreeSet<Place>,
    /// One worker is, not only to be compared: by worker.
    alone: BTreeMap<WorkerId, BTreeSet<Place>>,
    /// Those of workers that hold more than one task.
    pub behind: BTreeSet<Place>,
    /// These are to go out a second time whoever answers them, as far as the campaign's share of such tasks goes.
    pub doubles: BTreeSet<Place>,
    /// Of these answers differ, and nobody is at work on another.
    pub disputed: BTreeSet<Place>,
    /// What one worker alone was asked, and can be compared.
    singles: BTreeMap<WorkerId, BTreeSet<Place>>,
    /// How many tasks of each worker are being compared.
    compared: BTreeMap<WorkerId, u32>,
    /// Workers that others are to vouch for, and none of whose tasks is being compared.
    pub unproven: BTreeSet<WorkerId>,
    /// Tasks that are waited for.
    unsettled: usize,
    /// Tasks that are out to be compared.
    twice: usize,
    /// How many tasks each worker holds and has not answered, those apart that another has answered meanwhile.
    held: BTreeMap<WorkerId, u32>,
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
        let about = [&board.held, &board.compared].map(|counts| counts.keys());
        let workers = about.into_iter().flatten().chain(board.singles.keys()).chain(roster.keys());
        let workers: BTreeSet<WorkerId> = workers.cloned().collect();
        workers.iter().for_each(|worker| board.rank(worker, (state, roster)));
        board
    }

    /// Whether no answer of the open epoch is missing.
    pub fn is_answered(&self) -> bool {
        self.unsettled == 0
    }

    /// Whether nothing is being compared either.
    pub fn is_settled(&self) -> bool {
        self.is_answered() && self.twice == 0
    }

    /// What a worker alone was asked, the first in the order of the plan.
    pub fn single(&self, worker: &WorkerId) -> Option<Place> {
        self.singles.get(worker)?.first().copied()
    }

    /// How many unanswered tasks a worker holds.
    pub fn held(&self, worker: &WorkerId) -> u32 {
        self.held.get(worker).copied().unwrap_or(0)
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
        for place in self.alone.get(worker).into_iter().flatten() {
            match held > 1 {
                true => drop(self.behind.insert(*place)),
                false => drop(self.behind.remove(place)),
            }
        }
        let account = state.accounts.get(worker);
        let is_trusted = account.is_none_or(|a| a.quarantined.is_none());
        let is_due = self.singles.contains_key(worker) && !self.compared.contains_key(worker);
        match is_trusted && is_due && !account.is_some_and(Account::is_proven) {
            true => drop(self.unproven.insert(worker.clone())),
            false => drop(self.unproven.remove(worker)),
        }
        if is_trusted && roster.get(worker).is_some_and(|m| !m.strikes.is_resting()) {
            let failures = account.map_or(0, |a| a.failed + a.refused);
            self.ranks.insert(worker.clone(), (held, failures));
            self.hands.insert((held, failures, worker.clone()));
        }
    }

    /// Takes a ticket in; whom it is about.
    fn put(&mut self, state: &State, ticket: &Ticket) -> Vec<WorkerId> {
        let belongs = [
            is_open(state, ticket) && ticket.out().next().is_none(),
            is_open(state, ticket) && is_to_be_compared(state, ticket),
            is_disputed(state, ticket),
        ];
        for (list, _) in self.lists().into_iter().zip(belongs).filter(|(_, belongs)| *belongs) {
            list.insert(place(ticket));
        }
        for (list, worker) in self.lists_by_worker(state, ticket) {
            if let Some(worker) = worker {
                list.entry(worker.clone()).or_default().insert(place(ticket));
            }
        }
        self.unsettled += usize::from(is_open(state, ticket));
        self.twice += usize::from(is_twice(state, ticket));
        holders(ticket).into_iter().for_each(|worker| more(&mut self.held, worker));
        compared(state, ticket).into_iter().for_each(|worker| more(&mut self.compared, worker));
        about(ticket)
    }

    /// Takes a ticket out; whom it is about.
    fn lift(&mut self, state: &State, ticket: &Ticket) -> Vec<WorkerId> {
        for list in self.lists() {
            list.remove(&place(ticket));
        }
        self.behind.remove(&place(ticket));
        for (list, worker) in self.lists_by_worker(state, ticket) {
            let Some((worker, places)) = worker.and_then(|w| Some((w, list.get_mut(w)?))) else {
                continue;
            };
            places.remove(&place(ticket));
            if places.is_empty() {
                list.remove(worker);
            }
        }
        self.unsettled -= usize::from(is_open(state, ticket));
        self.twice -= usize::from(is_twice(state, ticket));
        holders(ticket).iter().for_each(|worker| less(&mut self.held, worker));
        compared(state, ticket).iter().for_each(|worker| less(&mut self.compared, worker));
        about(ticket)
    }

    fn lists(&mut self) -> [&mut BTreeSet<Place>; 3] {
        [&mut self.waiting, &mut self.doubles, &mut self.disputed]
    }

    /// The lists by worker, and the worker on whose a ticket belongs.
    fn lists_by_worker<'a>(&mut self, state: &State, ticket: &'a Ticket) -> [ByWorker<'_, 'a>; 2] {
        [(&mut self.singles, single(state, ticket)), (&mut self.alone, alone(state, ticket))]
    }
}

/// The task that a record is about, and the worker; none where it may change the whole board.
fn touched(record: &Record) -> Option<(TaskId, Option<&WorkerId>)> {
    match record {
        Record::Issued { task, worker, .. }
        | Record::Compared { task, worker, .. }
        | Record::Settled { task, worker, .. }
        | Record::Lost { task, worker, .. } => Some((*task, Some(worker))),
        Record::Accepted { answer } | Record::Disputed { answer } => {
            Some((answer.task, Some(&answer.worker)))
        }
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
    let is_wanted = !ticket.is_settled() || ticket.is_being_compared();
    let out = ticket.out().filter(|_| is_wanted);
    out.map(|a| a.worker.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Everybody that was asked.
fn about(ticket: &Ticket) -> Vec<WorkerId> {
    ticket.attempts.iter().map(|a| a.worker.clone()).collect()
}

/// Whether a task of the open epoch is out to be compared.
fn is_twice(state: &State, ticket: &Ticket) -> bool {
    ticket.task.epoch == state.epoch && ticket.is_being_compared()
}

/// The worker that alone is at work on an open task, not only to be compared.
fn alone<'a>(state: &State, ticket: &'a Ticket) -> Option<&'a WorkerId> {
    let mut out = ticket.out().filter(|_| is_open(state, ticket));
    let (first, second) = (out.next(), out.next());
    first.filter(|a| second.is_none() && !a.duplicate).map(|a| &a.worker)
}

/// The worker that alone has or had a task of the open epoch, where another's answer could be held beside its own.
fn single<'a>(state: &State, ticket: &'a Ticket) -> Option<&'a WorkerId> {
    let is_current = state.open && ticket.task.epoch == state.epoch && ticket.given_up.is_none();
    let mut live = ticket.live().filter(|_| is_current && ticket.task.work.job().is_comparable());
    let (first, second) = (live.next(), live.next());
    first.filter(|_| second.is_none()).map(|a| &a.worker)
}

/// The workers of a task whose answers are being compared.
fn compared(state: &State, ticket: &Ticket) -> Vec<WorkerId> {
    let is_disputed = state.disputes.contains_key(&ticket.task.id);
    let is_current = ticket.task.epoch == state.epoch;
    if !is_current || !(is_disputed || ticket.is_being_compared()) {
        return Vec::new();
    }
    ticket.live().map(|a| a.worker.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether another answer could tell who is right.
fn is_disputed(state: &State, ticket: &Ticket) -> bool {
    let is_current = state.open && ticket.task.epoch == state.epoch;
    let is_asked = ticket.out().next().is_some() || ticket.live().count() >= OPINIONS;
    is_current && ticket.is_answered() && !is_asked && state.disputes.contains_key(&ticket.task.id)
}

fn more(counts: &mut BTreeMap<WorkerId, u32>, worker: WorkerId) {
    *counts.entry(worker).or_default() += 1;
}

fn less(counts: &mut BTreeMap<WorkerId, u32>, worker: &WorkerId) {
    if let Some(count) = counts.get_mut(worker) {
        *count -= 1;
        if *count == 0 {
            counts.remove(worker);
        }
    }
}

/// Whether a task that has just gone out goes out a second time: a seeded draw.
fn is_to_be_compared(state: &State, ticket: &Ticket) -> bool {
    let Some(campaign) = &state.campaign else { return false };
    let PlannedTask { id, work, .. } = &ticket.task;
    let once = ticket.attempts.len() == 1 && ticket.out().count() == 1;
    let share = campaign.trust.duplicates.to_f64();
    let drawn = || Dice::new(campaign.seed, &id.to_string(), 0).unit() < WATCHED * share;
    once && work.job().is_comparable() && drawn()
}

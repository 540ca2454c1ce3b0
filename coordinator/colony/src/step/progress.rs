//! What moves the colony on after an event: epochs close and open, tasks go out.

use super::board::{Board, Place};
use super::{Command, Turn};
use crate::assign::assign;
use crate::plan::{Next, plan};
use crate::{
    Cause, Ending, GateReport, PlannedTask, Purpose, Record, ReleaseOrder, State, Ticket, gate,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use uspx_domain::{ExportFormat, Fingerprint, StoredFile, TaskId, WorkerId};

impl Turn<'_> {
    /// Goes on until there is nothing to do but wait.
    pub(super) fn advance(&mut self) {
        loop {
            self.amend_if_due();
            let next = match self.state().open {
                true => Next::Wait,
                false => plan(self.state(), &self.colony.speeds()),
            };
            match next {
                Next::Open { stage, tasks } => {
                    let epoch = self.state().epoch + 1;
                    self.record(Record::EpochOpened { epoch, stage, tasks });
                }
                Next::Gate => self.decide(),
                Next::End(ending) => self.end(ending),
                Next::Wait if self.is_over() => self.close(),
                Next::Wait => break,
            }
        }
        if self.state().ending.is_none() {
            self.dispatch();
        }
    }

    /// Whether the open epoch is: all is answered, and what is to be compared before it acts was.
    fn is_over(&mut self) -> bool {
        if self.state().open && self.colony.board.is_answered() {
            self.dispatch();
        }
        self.state().open && self.colony.board.is_settled()
    }

    fn close(&mut self) {
        let (answered, _, all) = self.state().progress();
        let (answered, given_up) = (answered as u32, (all - answered) as u32);
        let before = self.state().mask.as_ref().map(|m| m.version);
        let epoch = self.state().epoch;
        let decision = self.colony.state.decide().map(Box::new);
        self.colony.look_anew();
        self.step.records.push(Record::EpochClosed { epoch, answered, given_up, decision });
        let new = self.state().mask.clone().filter(|m| Some(m.version) != before);
        self.step.commands.extend(new.map(|mask| Command::PublishMask(Box::new(mask))));
    }

    fn decide(&mut self) {
        let Some(report) = gate::gate(self.state()) else {
            return self.end(Ending::Failed("the students share no judged prompts".to_owned()));
        };
        let order = order(self.state(), &report);
        let refusal = report.refusal.clone();
        self.record(Record::Gated {
            report: Box::new(report),
            release: order.clone().map(Box::new),
        });
        match order {
            Some(order) => self.command(Command::PublishRelease(Box::new(order))),
            None => self.end(Ending::Refused(
                refusal.unwrap_or_else(|| "there is nothing to publish".to_owned()),
            )),
        }
    }

    /// Sends out, while workers have room, what answers differ on and what is to vouch for a worker; what nobody
    /// is working on, in the order of the plan; and some of it twice. Then what waits at one worker while another has
    /// nothing to do.
    fn dispatch(&mut self) {
        let Some(ahead) = self.state().campaign.as_ref().map(|c| c.trust.ahead) else { return };
        self.each(
            ahead,
            |board| &board.disputed,
            |turn, place| {
                turn.issue(*place, true, ahead);
                true
            },
        );
        self.each(
            ahead,
            |board| &board.unproven,
            |turn, worker| turn.compare_next(turn.colony.board.single(worker), ahead),
        );
        self.issue_waiting(ahead);
        self.each(
            ahead,
            |board| &board.doubles,
            |turn, place| turn.compare_next(Some(*place), ahead),
        );
        while let Some((place, from)) = self.waits_behind() {
            self.lose(place.1, &from, Cause::Moved);
            self.command(Command::Withdraw { task: place.1, worker: from });
            self.issue(place, false, ahead);
        }
    }

    /// Whether the campaign's share of tasks that go out twice leaves room for one more.
    fn may_compare(&self) -> bool {
        let state = self.state();
        let share = state.campaign.as_ref().map(|c| c.trust.duplicates);
        share.is_some_and(|share| share.floor_of(state.planned) > state.duplicates)
    }

    /// A task goes out a second time, if there is one; whether the campaign's share leaves room for more.
    fn compare_next(&mut self, place: Option<Place>, ahead: u32) -> bool {
        let is_room = self.may_compare();
        if let (true, Some(place)) = (is_room, place) {
            self.issue(place, true, ahead);
        }
        is_room
    }

    /// Sends out what nobody is working on. Where nobody with free hands is able to do a kind of task, no other of it is
    /// looked at.
    fn issue_waiting(&mut self, ahead: u32) {
        let mut idle = BTreeSet::new();
        self.each(
            ahead,
            |board| &board.waiting,
            |turn, place| {
                let is_new = |ticket: &&Ticket| ticket.attempts.is_empty();
                let new = turn.state().tickets.get(&place.1).filter(is_new);
                let kind = new.map(|ticket| kind(&ticket.task));
                let is_idle = kind.is_some_and(|kind| idle.contains(&kind));
                if !is_idle && !turn.issue(*place, false, ahead) {
                    idle.extend(kind);
                }
                true
            },
        );
    }

    /// Does something about everything on a list, in its order, until it is told to stop and while a worker could be
    /// asked for anything: where thousands of tasks wait, most events find nobody.
    fn each<T: Ord + Clone>(
        &mut self,
        ahead: u32,
        list: impl Fn(&Board) -> &BTreeSet<T>,
        mut act: impl FnMut(&mut Self, &T) -> bool,
    ) {
        let mut last = None;
        while self.colony.board.free(ahead).next().is_some() {
            let after = last.as_ref().map_or(Unbounded, Excluded);
            let next = list(&self.colony.board).range((after, Unbounded)).next().cloned();
            let Some(next) = next.filter(|next| act(self, next)) else { return };
            last = Some(next);
        }
    }

    /// A task that waits behind another one at its worker while a worker that was not asked for it
    /// yet has nothing to do. Workers take tasks in the order of the plan, so the last one waits.
    fn waits_behind(&self) -> Option<(Place, WorkerId)> {
        let board = &self.colony.board;
        let idle: Vec<&WorkerId> = board.free(1).collect();
        if idle.is_empty() || board.behind.is_empty() {
            return None;
        }
        let mut able: BTreeMap<Kind, Vec<&WorkerId>> = BTreeMap::new();
        let mut moves = |place: &Place| {
            let ticket = self.state().tickets.get(&place.1)?;
            let from = &ticket.out().next()?.worker;
            let of_kind = able.entry(kind(&ticket.task)).or_insert_with(|| {
                idle.iter().copied().filter(|id| self.is_able(id, &ticket.task)).collect()
            });
            let takes =
                of_kind.iter().any(|id| !ticket.was_asked(id) && self.is_able(id, &ticket.task));
            takes.then(|| (*place, from.clone()))
        };
        board.behind.iter().rev().find_map(&mut moves)
    }

    fn is_able(&self, worker: &WorkerId, task: &PlannedTask) -> bool {
        self.colony.roster.get(worker).is_some_and(|member| member.is_able(task))
    }

    /// Sends a task to the worker whose turn it is; whether there is one.
    fn issue(&mut self, (_, task): Place, duplicate: bool, ahead: u32) -> bool {
        let Some(ticket) = self.state().tickets.get(&task) else { return false };
        let asked = |worker: &WorkerId| ticket.was_asked(worker);
        let able = |worker: &WorkerId| self.is_able(worker, &ticket.task);
        let anyone_new =
            || self.colony.trusted().any(|(id, member)| member.is_able(&ticket.task) && !asked(id));
        let board = &self.colony.board;
        // Where both are new to the colony, each may vouch for the other.
        let first = board.free(ahead).take(if duplicate { LOOKED_AT } else { 0 });
        let unproven = first.filter(|worker| board.unproven.contains(*worker));
        let found = assign(unproven.chain(board.free(ahead)), able, asked, anyone_new);
        let Some(worker) = found.filter(|worker| !(duplicate && asked(worker))) else {
            return false;
        };
        let (attempt, planned) = (ticket.attempts.len() as u32 + 1, Box::new(ticket.task.clone()));
        self.record(Record::Issued { task, worker: worker.clone(), attempt, duplicate });
        self.command(Command::Issue { task: planned, worker, attempt });
        true
    }
}

/// Free hands among which one that is new to the colony too is looked for.
const LOOKED_AT: usize = 32;

/// Tasks that the same workers are able to do.
type Kind = (Fingerprint, &'static str, Option<TaskId>);

fn kind(task: &PlannedTask) -> Kind {
    // Probes of one name ask the same of a worker; of other work there are few tasks.
    let own = (task.purpose != Purpose::Evidence).then_some(task.id);
    (task.model, task.work.name(), own)
}

/// What is to be published, if the gate let it pass.
fn order(state: &State, report: &GateReport) -> Option<ReleaseOrder> {
    let campaign = state.campaign.as_ref().filter(|_| report.passes())?;
    let (_, adapter, _) = state.results.best_adapter()?;
    let previous = state.published.as_ref().map(|p| p.release);
    let formats = released(state);
    formats.get(&ExportFormat::gated())?;
    Some(ReleaseOrder {
        release: previous.unwrap_or(0) + 1,
        previous,
        teacher: campaign.teacher,
        base: campaign.student?,
        adapter,
        formats,
        mask: state.mask.as_ref()?.mask.clone(),
        label_mask: state.results.label_mask.clone(),
    })
}

/// The student's files in the formats that a release has, as far as their exports succeeded.
fn released(state: &State) -> BTreeMap<ExportFormat, Vec<StoredFile>> {
    let files = |format: ExportFormat| {
        state.results.exports.get(&format.into()).map(|files| (format, files.clone()))
    };
    ExportFormat::released().filter_map(files).collect()
}

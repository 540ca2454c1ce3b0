//! What moves the colony on after an event: epochs close and open, tasks go out.

use super::roster::Member;
use super::{Command, Turn};
use crate::assign::{WorkerView, assign};
use crate::plan::{Next, plan};
use crate::{
    Cause, Dice, Ending, GateReport, PlannedTask, Record, ReleaseOrder, State, Ticket, gate,
};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{ExportFormat, StoredFile, WorkerId};

impl Turn<'_> {
    /// Goes on until there is nothing to do but wait.
    pub(super) fn advance(&mut self) {
        loop {
            self.amend_if_due();
            match plan(self.state(), &self.colony.speeds()) {
                Next::Open { stage, tasks } => {
                    let epoch = self.state().epoch + 1;
                    self.record(Record::EpochOpened { epoch, stage, tasks });
                }
                Next::Gate => self.decide(),
                Next::End(ending) => self.end(ending),
                Next::Wait if self.state().open && self.is_settled() => self.close(),
                Next::Wait => break,
            }
        }
        if self.state().ending.is_none() {
            self.dispatch();
        }
    }

    fn is_settled(&self) -> bool {
        self.current().all(|t| t.is_settled())
    }

    /// Tickets of the open epoch.
    fn current(&self) -> impl Iterator<Item = &Ticket> {
        let epoch = self.state().epoch;
        self.state().tickets.values().filter(move |t| t.task.epoch == epoch)
    }

    fn close(&mut self) {
        let answered = self.current().filter(|t| t.is_answered()).count() as u32;
        let given_up = self.current().count() as u32 - answered;
        let before = self.state().mask.as_ref().map(|m| m.version);
        let epoch = self.state().epoch;
        let decision = self.colony.state.decide().map(Box::new);
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

    /// Sends out what nobody is working on, in the order of the plan, while workers have room.
    fn dispatch(&mut self) {
        let mut open: Vec<&Ticket> = self.current().filter(|t| !t.is_settled()).collect();
        open.sort_by_key(|t| t.task.index);
        let waiting = open.iter().filter(|t| t.out().next().is_none()).map(|t| t.task.clone());
        let alone = open.iter().map(|t| t.task.clone());
        let (waiting, alone): (Vec<_>, Vec<_>) = (waiting.collect(), alone.collect());
        for task in waiting {
            self.issue(task, false);
        }
        for task in alone {
            if self.is_to_be_compared(&task) {
                self.issue(task, true);
            }
        }
        while let Some((task, from)) = self.waits_behind() {
            self.lose(task.id, &from, Cause::Moved);
            self.command(Command::Withdraw { task: task.id, worker: from });
            self.issue(task, false);
        }
    }

    /// A task that waits behind another one at its worker while a worker that was not asked for it
    /// yet has nothing to do. Workers take tasks in the order of the plan, so the last one waits.
    fn waits_behind(&self) -> Option<(PlannedTask, WorkerId)> {
        let busy = |worker: &WorkerId| busy(self.state(), worker);
        let at_rest = |(id, m): &(&WorkerId, &Member)| !m.strikes.is_resting() && busy(id) == 0;
        let idle: Vec<_> = self.colony.trusted().filter(at_rest).collect();
        if idle.is_empty() {
            return None;
        }
        let behind: BTreeSet<&WorkerId> =
            self.colony.roster.keys().filter(|worker| busy(worker) > 1).collect();
        let waiting = |ticket: &&Ticket| {
            let mut out = ticket.out();
            let first = out.next().filter(|a| !a.duplicate && behind.contains(&a.worker));
            let is_alone = first.is_some() && out.next().is_none();
            let takes =
                |id: &WorkerId, m: &Member| m.is_able(&ticket.task) && !ticket.was_asked(id);
            !ticket.is_settled() && is_alone && idle.iter().any(|(id, m)| takes(id, m))
        };
        let last = self.current().filter(waiting).max_by_key(|t| t.task.index)?;
        Some((last.task.clone(), last.out().next()?.worker.clone()))
    }

    fn issue(&mut self, task: PlannedTask, duplicate: bool) {
        let Some(ticket) = self.state().tickets.get(&task.id) else { return };
        let Some(ahead) = self.state().campaign.as_ref().map(|c| c.trust.ahead) else { return };
        let attempt = ticket.attempts.len() as u32 + 1;
        let asked = |worker: &WorkerId| ticket.was_asked(worker);
        let Some(worker) = assign(&self.views(&task), asked, ahead) else { return };
        if duplicate && asked(&worker) {
            return;
        }
        self.record(Record::Issued { task: task.id, worker: worker.clone(), attempt, duplicate });
        self.command(Command::Issue { task: Box::new(task), worker, attempt });
    }

    /// The trusted workers heard of, as a task sees them.
    fn views(&self, task: &PlannedTask) -> Vec<WorkerView> {
        let account = |id: &WorkerId| self.state().accounts.get(id);
        let view = |(id, member): (&WorkerId, &Member)| WorkerView {
            id: id.clone(),
            busy: busy(self.state(), id),
            able: member.is_able(task),
            rests: member.strikes.is_resting(),
            failures: account(id).map_or(0, |a| a.failed + a.refused),
        };
        self.colony.trusted().map(view).collect()
    }

    /// Whether a task that has just gone out goes out a second time: a seeded draw, never beyond
    /// the campaign's share.
    fn is_to_be_compared(&self, task: &PlannedTask) -> bool {
        let state = self.state();
        let (Some(campaign), Some(ticket)) = (&state.campaign, state.tickets.get(&task.id)) else {
            return false;
        };
        let once = ticket.attempts.len() == 1 && ticket.out().count() == 1;
        let share = campaign.trust.duplicates;
        let room = share.floor_of(state.planned) > state.duplicates;
        let drawn =
            || Dice::new(campaign.seed, &task.id.to_string(), 0).unit() < 2.0 * share.to_f64();
        once && room && task.work.job().is_comparable() && drawn()
    }
}

/// Tasks that a worker holds and has not answered, those apart that another has answered meanwhile.
fn busy(state: &State, worker: &WorkerId) -> u32 {
    let held =
        |t: &&Ticket| t.out().any(|a| a.worker == *worker && (a.duplicate || !t.is_settled()));
    state.tickets.values().filter(held).count() as u32
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

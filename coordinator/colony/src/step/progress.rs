//! What moves the colony on after an event: epochs close and open, tasks go out.

use super::roster::Member;
use super::{Command, Turn};
use crate::assign::{WorkerView, assign};
use crate::plan::{Next, plan};
use crate::{
    Cause, Dice, Ending, GateReport, PlannedTask, Record, ReleaseOrder, State, Ticket, gate,
};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{ExportFormat, StoredFile, TaskId, WorkerId};

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

    /// Sends out what nobody is working on, in the order of the plan, while workers have room; some
    /// of it twice; and what waits at one worker while another has nothing to do.
    fn dispatch(&mut self) {
        let mut load = load(self.state());
        let mut open: Vec<(u32, TaskId)> =
            self.current().filter(|t| !t.is_settled()).map(|t| (t.task.index, t.task.id)).collect();
        open.sort_unstable();
        for duplicate in [false, true] {
            for (_, id) in &open {
                if !self.has_room(&load) {
                    return;
                }
                if let Some(task) = self.due(*id, duplicate) {
                    self.issue(task, duplicate, &mut load);
                }
            }
        }
        while let Some((task, from)) = self.waits_behind(&load) {
            self.lose(task.id, &from, Cause::Moved);
            self.command(Command::Withdraw { task: task.id, worker: from.clone() });
            load.entry(from).and_modify(|held| *held -= 1);
            self.issue(task, false, &mut load);
        }
    }

    /// Whether a worker could be asked for anything: where thousands of tasks wait, most events
    /// find nobody.
    fn has_room(&self, load: &Load) -> bool {
        let Some(ahead) = self.state().campaign.as_ref().map(|c| c.trust.ahead) else {
            return false;
        };
        self.colony.trusted().any(|(id, m)| !m.strikes.is_resting() && held(load, id) < ahead)
    }

    /// The task, if it is to go out: since nobody works on it, or a second time.
    fn due(&self, id: TaskId, duplicate: bool) -> Option<PlannedTask> {
        let ticket = self.state().tickets.get(&id)?;
        let is_due = match duplicate {
            false => ticket.out().next().is_none(),
            true => self.is_to_be_compared(ticket),
        };
        is_due.then(|| ticket.task.clone())
    }

    /// A task that waits behind another one at its worker while a worker that was not asked for it
    /// yet has nothing to do. Workers take tasks in the order of the plan, so the last one waits.
    fn waits_behind(&self, load: &Load) -> Option<(PlannedTask, WorkerId)> {
        let at_rest =
            |(id, m): &(&WorkerId, &Member)| !m.strikes.is_resting() && held(load, id) == 0;
        let idle: Vec<_> = self.colony.trusted().filter(at_rest).collect();
        if idle.is_empty() {
            return None;
        }
        let waiting = |ticket: &&Ticket| {
            let mut out = ticket.out();
            let first = out.next().filter(|a| !a.duplicate && held(load, &a.worker) > 1);
            let is_alone = first.is_some() && out.next().is_none();
            let takes =
                |id: &WorkerId, m: &Member| m.is_able(&ticket.task) && !ticket.was_asked(id);
            !ticket.is_settled() && is_alone && idle.iter().any(|(id, m)| takes(id, m))
        };
        let last = self.current().filter(waiting).max_by_key(|t| t.task.index)?;
        Some((last.task.clone(), last.out().next()?.worker.clone()))
    }

    fn issue(&mut self, task: PlannedTask, duplicate: bool, load: &mut Load) {
        let Some(ticket) = self.state().tickets.get(&task.id) else { return };
        let Some(ahead) = self.state().campaign.as_ref().map(|c| c.trust.ahead) else { return };
        let attempt = ticket.attempts.len() as u32 + 1;
        let asked = |worker: &WorkerId| ticket.was_asked(worker);
        let Some(worker) = assign(&self.views(&task, load), asked, ahead) else { return };
        if duplicate && asked(&worker) {
            return;
        }
        *load.entry(worker.clone()).or_default() += 1;
        self.record(Record::Issued { task: task.id, worker: worker.clone(), attempt, duplicate });
        self.command(Command::Issue { task: Box::new(task), worker, attempt });
    }

    /// The trusted workers heard of, as a task sees them.
    fn views(&self, task: &PlannedTask, load: &Load) -> Vec<WorkerView> {
        let account = |id: &WorkerId| self.state().accounts.get(id);
        let view = |(id, member): (&WorkerId, &Member)| WorkerView {
            id: id.clone(),
            busy: held(load, id),
            able: member.is_able(task),
            rests: member.strikes.is_resting(),
            failures: account(id).map_or(0, |a| a.failed + a.refused),
        };
        self.colony.trusted().map(view).collect()
    }

    /// Whether a task that has just gone out goes out a second time: a seeded draw, never beyond
    /// the campaign's share.
    fn is_to_be_compared(&self, ticket: &Ticket) -> bool {
        let (state, task) = (self.state(), &ticket.task);
        let Some(campaign) = &state.campaign else { return false };
        let once = ticket.attempts.len() == 1 && ticket.out().count() == 1;
        let share = campaign.trust.duplicates;
        let room = share.floor_of(state.planned) > state.duplicates;
        let drawn =
            || Dice::new(campaign.seed, &task.id.to_string(), 0).unit() < 2.0 * share.to_f64();
        once && room && task.work.job().is_comparable() && drawn()
    }
}

/// How many tasks each worker holds and has not answered, those apart that another has answered
/// meanwhile.
type Load = BTreeMap<WorkerId, u32>;

fn load(state: &State) -> Load {
    let mut load = Load::new();
    for ticket in state.tickets.values() {
        let out = ticket.out().filter(|a| a.duplicate || !ticket.is_settled());
        let workers: BTreeSet<&WorkerId> = out.map(|a| &a.worker).collect();
        workers.into_iter().for_each(|w| *load.entry(w.clone()).or_default() += 1);
    }
    load
}

fn held(load: &Load, worker: &WorkerId) -> u32 {
    load.get(worker).copied().unwrap_or(0)
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

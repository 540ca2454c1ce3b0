//! The fold: one record after another changes the state. It cannot fail, and it decides nothing
//! that a record could say.

use crate::{
    Blame, CampaignConfig, Cause, Contender, Decision, Ending, Founding, MaskVersion, More,
    PlannedTask, Purpose, Record, Split, Stage, State, Ticket, mask, trail,
};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{
    Answer, Estimator, Fingerprint, Mask, ReleaseNumber, SeamPrompts, TaskId, Work, WorkerId,
};

use super::{Attempt, ByPrompt, Fate, Pending, PublishedStudent, Spent, Trails};

/// Where a decision on the mask comes from.
#[derive(Clone, Copy)]
pub(super) enum Taken<'a> {
    /// From today's rules.
    Today,
    /// From its record, whatever today's rules say.
    Recorded(Option<&'a Decision>),
}

impl State {
    /// Takes one record in.
    pub fn fold(&mut self, record: &Record) {
        match record {
            Record::Founded(founding) => self.found(founding),
            Record::Continued(more) => self.continue_campaign(more),
            Record::Amended(amendment) => {
                self.amend(&amendment.campaign, Taken::Recorded(amendment.decision.as_deref()));
            }
            Record::EpochOpened { epoch, stage, tasks } => self.open_epoch(*epoch, *stage, tasks),
            Record::Issued { task, worker, attempt, duplicate } => {
                self.issue(*task, worker, *attempt, *duplicate)
            }
            Record::Accepted { answer } => self.accept(answer),
            Record::Compared { task, worker, agreed } => self.compare(*task, worker, *agreed),
            Record::Disputed { answer } => self.dispute(answer),
            Record::Settled { task, worker, right, wrong } => {
                self.settle(*task, worker, right, wrong)
            }
            Record::Retracted { worker } => self.retract(worker),
            Record::Lost { task, worker, cause } => self.lose(*task, worker, cause),
            Record::GivenUp { task, reason } => self.give_up(*task, reason),
            Record::EpochClosed { epoch, decision, .. } => {
                self.close_epoch(*epoch, Taken::Recorded(decision.as_deref()));
            }
            Record::Quarantined { worker, reason } => {
                self.accounts.entry(worker.clone()).or_default().quarantined = Some(reason.clone());
            }
            Record::Gated { report, release } => {
                self.learnt =
                    self.campaign.as_ref().map(|c| c.split(Split::Train).into_iter().collect());
                self.gate = Some((**report).clone());
                self.order = release.as_deref().cloned();
                self.student_asked = false;
            }
            Record::StudentAsked => {
                (self.learnt, self.student_asked) = (None, true);
                self.ending = self.ending.take().filter(|ending| *ending != Ending::Measured);
            }
            Record::Held => (self.held, self.student_asked) = (true, false),
            Record::Resumed => self.held = false,
            Record::Day { day } => self.spent = Spent { day: *day, millis: 0 },
            Record::Published { release } => self.publish(*release),
            Record::Ended { ending } => {
                self.student_asked = false;
                (self.ending, self.ended_before) = (Some(ending.clone()), None);
            }
            Record::Snapshot(snapshot) => self.clone_from(&snapshot.state),
        }
    }

    /// A new campaign keeps what is known of workers and of the same teacher's units, the published
    /// student, which the next one is to beat whatever its base, and what a person said of students.
    fn found(&mut self, founding: &Founding) {
        let (old, campaign) = (std::mem::take(self), &founding.campaign);
        let same = |c: &&CampaignConfig| c.teacher == campaign.teacher && c.shape == campaign.shape;
        let (trails, by_prompt) = match old.campaign.as_ref().filter(same) {
            Some(before) => (old.trails, old.by_prompt.moved(before, campaign)),
            None => (Trails::default(), ByPrompt::default()),
        };
        *self = Self {
            campaign: Some(campaign.clone()),
            identity: Some(founding.identity()),
            epoch: old.epoch,
            trails,
            by_prompt,
            accounts: old.accounts,
            published: old.published,
            held: old.held,
            spent: old.spent,
            ..Self::default()
        };
    }

    fn open_epoch(&mut self, epoch: u32, stage: Stage, tasks: &[PlannedTask]) {
        (self.epoch, self.stage, self.open) = (epoch, Some(stage), true);
        self.opened.insert(stage);
        if stage == Stage::Label {
            self.label_under(tasks.first().and_then(PlannedTask::label_mask));
        }
        let prompts = tasks.iter().flat_map(|t| t.work.prompts()).copied();
        self.asked.entry(stage).or_default().extend(prompts);
        self.tickets.extend(tasks.iter().map(|t| (t.id, Ticket::new(t.clone()))));
        self.planned += tasks.len() as u64;
        self.results.open_parts(tasks);
        if stage == Stage::Explore {
            self.explored.rounds += 1;
            self.explored.prompts +=
                tasks.iter().flat_map(|t| t.work.prompts()).collect::<BTreeSet<_>>().len() as u64;
            self.explored.pairs += tasks.iter().map(pairs).sum::<u64>();
            self.by_prompt.open(tasks);
        }
    }

    /// Labels of another mask than this are forgotten: they are made anew.
    fn label_under(&mut self, mask: Option<&Mask>) {
        if self.results.label_mask.as_ref() != mask {
            self.results.forget_labels();
            self.asked.remove(&Stage::Label);
        }
    }

    /// The campaign goes on, as ledgers had it once: what is measured stays, what was made and
    /// judged of it is made and judged anew.
    fn continue_campaign(&mut self, more: &More) {
        let Some(campaign) = &mut self.campaign else { return };
        campaign.prompts.extend(more.prompts.iter().cloned());
        let spent = self.explored.pairs;
        campaign.probe.exact_pairs = campaign.probe.exact_pairs.max(spent) + more.pairs;
        if more.pairs > 0 {
            campaign.probe.exact_least = spent + more.pairs;
        }
        self.opened.clear();
        self.results.forget_student();
        (self.ending, self.gate, self.order) = (None, None, None);
    }

    fn issue(&mut self, task: TaskId, worker: &WorkerId, number: u32, duplicate: bool) {
        if let Some(ticket) = self.tickets.get_mut(&task) {
            // Who settles a dispute is asked about a task that went out twice already.
            let again = self.disputes.contains_key(&task);
            self.duplicates += u64::from(duplicate && !again);
            ticket.attempts.push(Attempt {
                worker: worker.clone(),
                number,
                duplicate,
                fate: Fate::Out,
            });
        }
    }

    /// Only the first acceptance of a task counts, whatever the ledger says later.
    fn accept(&mut self, answer: &Answer) {
        let Some(ticket) = self.tickets.get_mut(&answer.task).filter(|t| !t.is_answered()) else {
            return;
        };
        ticket.set_fate(&answer.worker, Fate::Answered);
        ticket.answered_by = Some(answer.worker.clone());
        self.accounts.entry(answer.worker.clone()).or_default().answered += 1;
        self.pending.insert(answer.clone());
        let model = ticket.task.model;
        count_seams(&mut self.seam_prompts, &ticket.task, answer.seams);
        self.remember_skipped(model, answer);
        self.spend(answer);
    }

    /// A set, so that the order of answers cannot matter.
    fn remember_skipped(&mut self, model: Fingerprint, answer: &Answer) {
        let Some(campaign) = self.campaign.as_ref().filter(|_| !answer.skipped.is_empty()) else {
            return;
        };
        let places: BTreeMap<&str, u32> =
            campaign.live().map(|(at, p)| (p.id.as_str(), at)).collect();
        let of_model = self.skipped.entry(model).or_default();
        for skipped in &answer.skipped {
            if let Some(at) = places.get(skipped.id.as_str()) {
                of_model.entry(*at).or_default().insert(skipped.reason);
            }
        }
    }

    fn compare(&mut self, task: TaskId, worker: &WorkerId, agreed: Option<bool>) {
        let Some(ticket) = self.tickets.get_mut(&task) else { return };
        ticket.set_fate(worker, Fate::Answered);
        // Ledgers from before disputes were settled say that two disagree, too: that tells nothing of either.
        if let (Some(first), Some(true)) = (ticket.answered_by.clone(), agreed) {
            self.vouch([&first, worker]);
        }
    }

    fn lose(&mut self, task: TaskId, worker: &WorkerId, cause: &Cause) {
        if let Some(ticket) = self.tickets.get_mut(&task) {
            ticket.set_fate(worker, Fate::Lost { blame: cause.blame() });
            if cause.blame() != Blame::Nobody {
                let reasons = self.setbacks.entry(ticket.task.work.name().to_owned()).or_default();
                *reasons.entry(cause.to_string()).or_default() += 1;
            }
        }
        self.accounts.entry(worker.clone()).or_default().charge(cause);
    }

    fn give_up(&mut self, task: TaskId, reason: &str) {
        if let Some(ticket) = self.tickets.get_mut(&task) {
            ticket.given_up = Some(reason.to_owned());
        }
    }

    /// Closes the epoch by today's rules, and says what they decide.
    pub(crate) fn decide(&mut self) -> Option<Decision> {
        self.close_epoch(self.epoch, Taken::Today)
    }

    /// Goes on under another configuration by today's rules, and says what they decide.
    pub(crate) fn decide_under(&mut self, campaign: &CampaignConfig) -> Option<Decision> {
        self.amend(campaign, Taken::Today)
    }

    /// Everything accepted since the last close acts now, also late answers to earlier epochs.
    fn close_epoch(&mut self, epoch: u32, taken: Taken<'_>) -> Option<Decision> {
        let pending = std::mem::take(&mut self.pending);
        if let Some(campaign) = &self.campaign {
            let mut gathered = Trails::default();
            let mut by_prompt = self.by_prompt.closing();
            for (id, packed) in pending.iter() {
                let Some(Ticket { task, .. }) = self.tickets.get(&id) else { continue };
                let answer = packed.answer();
                gathered.gather(task, &answer.outcome);
                by_prompt.take(campaign, task, &answer);
                // A round is over with its epoch: later ones went on without what comes now.
                let is_part = matches!(task.purpose, Purpose::Part { .. });
                if !is_part || task.epoch == epoch {
                    self.results.keep(campaign, task, &answer);
                }
            }
            self.trails.close(campaign.probe.evaporation, gathered);
        }
        self.open = false;
        let bears = self.stage.is_some_and(Stage::is_probe);
        let decision = if bears { self.redraw(epoch, taken) } else { None };
        self.forget(epoch, &pending);
        decision
    }

    /// Draws the mask anew and steers the next look at it. A recorded decision counts whatever
    /// today's rules come to; that they come to another is remembered.
    pub(super) fn redraw(&mut self, epoch: u32, taken: Taken<'_>) -> Option<Decision> {
        let today = mask::redraw(self);
        let trails = self.trails.digest();
        let of =
            |drawn: &MaskVersion| Decision { mask: drawn.mask.clone(), cut: drawn.cut, trails };
        let decided = today.as_ref().map(of);
        let (drawn, decision) = match taken {
            Taken::Recorded(recorded) if recorded != decided.as_ref() => {
                self.deviations.insert(epoch);
                let recorded = recorded?;
                (mask::as_recorded(self, today, recorded)?, recorded.clone())
            }
            _ => (today?, decided?),
        };
        let campaign = self.campaign.as_ref()?;
        let steady = drawn.jaccard.is_some_and(|j| j >= campaign.mask.stable);
        // What cheap scores of new prompts leave as it is was not tried.
        let tried = u32::from(self.stage == Some(Stage::Explore));
        self.stable_versions = if steady { self.stable_versions + tried } else { 0 };
        trail::deposit(&mut self.pheromone, &drawn);
        self.mask = Some(drawn);
        self.results.forget_candidates();
        Some(decision)
    }

    /// Keeps given-up tasks (they may be answered late), the closed epoch's tasks while a
    /// comparison may come, and the answers that those need.
    fn forget(&mut self, epoch: u32, pending: &Pending) {
        self.tickets.retain(|_, t| !t.is_answered() || t.task.epoch == epoch);
        let due = |id: &TaskId| self.tickets.get(id).is_some_and(|t| t.out().next().is_some());
        let disputed = |id: &TaskId| self.disputes.contains_key(id);
        let kept = pending.iter().filter(|(id, _)| due(id) || disputed(id));
        self.witnesses = kept.map(|(id, packed)| (id, packed.answer())).collect();
        self.disputes.retain(|id, _| self.witnesses.contains_key(id));
    }

    fn publish(&mut self, release: ReleaseNumber) {
        let formats = self.order.as_ref().map(|o| o.formats.clone()).unwrap_or_default();
        self.published = Some(PublishedStudent { release, formats });
        self.ending = Some(Ending::Published(release));
    }
}

/// Counts where every prompt is met once: see [`SeamPrompts`].
fn count_seams(counts: &mut SeamPrompts, task: &PlannedTask, seams: u32) {
    let count = match (&task.purpose, &task.work) {
        (_, Work::Estimate(e)) if e.estimator == Estimator::TRACE => &mut counts.teacher,
        (Purpose::Contender(Contender::Teacher), Work::Judge(_)) => &mut counts.teacher,
        (Purpose::Contender(Contender::Base), Work::Judge(_)) => &mut counts.student,
        _ => return,
    };
    *count = count.saturating_add(seams);
}

/// Runs that a task asks for: prompts times cuts.
fn pairs(task: &PlannedTask) -> u64 {
    match &task.work {
        Work::Ablate(ablate) => ablate.prompts.len() as u64 * ablate.cuts.len() as u64,
        _ => 0,
    }
}

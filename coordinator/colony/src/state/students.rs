//! When a student is made: once enough prompts are new, and nothing keeps it back.

use super::State;
use crate::campaign::HOUR;
use crate::{PlannedTask, Purpose, Split};
use serde::{Deserialize, Serialize};
use uspx_domain::Answer;

/// Milliseconds of a day: no answer takes more of one, whatever its worker says.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// What keeps the next student back, while measuring goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptBack {
    /// A person's word.
    Held,
    /// The machine time that students may take of a day is spent.
    Spent,
}

/// The machine time that students took of a day, as far as days are told ([`crate::Event::Day`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The day, counted from 1970 UTC; 0 before any was told.
    pub day: u32,
    /// How long the answers that were accepted in it took their workers, in milliseconds.
    pub millis: u64,
}

impl Spent {
    /// The same in hours.
    pub fn hours(&self) -> f64 {
        self.millis as f64 / HOUR
    }

    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl State {
    /// Train prompts that are still to come before another student is made; none where nothing is waited for.
    pub fn still_lacks(&self) -> Option<usize> {
        let (campaign, learnt) = (self.campaign.as_ref()?, self.learnt.as_ref()?);
        let train = campaign.split(Split::Train);
        let new = train.iter().filter(|at| !learnt.contains(at)).count();
        let wanted = campaign.distil.fresh.of(learnt.len()).max(1);
        let waits = campaign.student.is_some() && self.results.adapters.is_empty();
        Some(wanted.saturating_sub(new)).filter(|left| waits && *left > 0)
    }

    /// Whether a person holds students back.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The machine time that students took of the day.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// What keeps the next batch of a student's work back. The one that a person asked for is made whatever would.
    pub fn kept_back(&self) -> Option<KeptBack> {
        let campaign = self.campaign.as_ref().filter(|c| c.student.is_some());
        let limit = campaign.filter(|_| !self.student_asked)?.distil.millis_a_day();
        let is_spent = limit.is_some_and(|limit| self.spent.millis as f64 >= limit);
        match (self.held, is_spent) {
            (true, _) => Some(KeptBack::Held),
            (false, true) => Some(KeptBack::Spent),
            (false, false) => None,
        }
    }

    /// The same where nothing else is left to do: the campaign waits for that alone.
    pub fn waits(&self) -> Option<KeptBack> {
        let is_at_rest = !self.open && self.is_under_way();
        self.kept_back().filter(|_| is_at_rest)
    }

    /// Whether a person's word has a student made that would not be made without it.
    pub(crate) fn makes_on_demand(&self) -> bool {
        self.still_lacks().is_some() || (self.is_under_way() && self.kept_back().is_some())
    }

    /// Whether a student may still be made in this campaign.
    fn is_under_way(&self) -> bool {
        self.ending.is_none() && self.ended_before.is_none() && self.gate.is_none()
    }

    /// Whether the day is to be noted: where students have a limit, and it is not the one that was told last. A clock
    /// that was set back is believed.
    pub fn is_news(&self, day: u32) -> bool {
        let campaign = self.campaign.as_ref();
        let is_limited = campaign.is_some_and(|c| c.distil.millis_a_day().is_some());
        is_limited && self.spent.day != day
    }

    /// An answer of a student's work was accepted. Where there is no limit nothing is counted.
    pub(super) fn spend(&mut self, answer: &Answer) {
        let campaign = self.campaign.as_ref();
        let is_limited = campaign.is_some_and(|c| c.distil.millis_a_day().is_some());
        let task = self.tickets.get(&answer.task).map(|t| &t.task);
        if is_limited && task.is_some_and(is_student_s) {
            self.spent.millis = self.spent.millis.saturating_add(answer.millis.min(DAY));
        }
    }
}

fn is_student_s(task: &PlannedTask) -> bool {
    match task.purpose {
        Purpose::Labels(_) | Purpose::Adapter(_) | Purpose::Part { .. } | Purpose::Contender(_) => {
            true
        }
        Purpose::Evidence | Purpose::Trials(_) | Purpose::Sae(_) => false,
    }
}

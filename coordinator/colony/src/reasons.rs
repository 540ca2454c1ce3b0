//! Why work came to nothing and which prompts were left out, counted: for the closing error,
//! status, log and report.

use crate::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uspx_domain::{SkipGroup, Skipped};

/// A reason, and how often it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The kind of work.
    pub work: String,
    /// The reason.
    pub reason: String,
    /// Tasks or attempts that it was given for.
    pub count: u64,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = if self.count == 1 { "task" } else { "tasks" };
        write!(f, "{} {} {tasks} given up: {}", self.count, self.work, self.reason)
    }
}

/// Prompts that a model cannot run, for one kind of reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// `teacher` or `student`.
    pub model: String,
    /// The kind of reason, as [`uspx_domain::SkipReason::name`] has it.
    pub reason: String,
    /// Ids of the prompts, in the order of the campaign.
    pub ids: Vec<String>,
    /// All that in words, with the numbers of the first.
    pub text: String,
}

/// Why tasks are given up, most frequent first.
pub fn given_up(state: &State) -> Vec<Reason> {
    let mut counts: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for ticket in state.tickets.values().filter(|t| !t.is_answered()) {
        if let Some(reason) = &ticket.given_up {
            *counts
                .entry(ticket.task.work.name())
                .or_default()
                .entry(reason.clone())
                .or_default() += 1;
        }
    }
    sorted(counts)
}

/// Why attempts came to nothing, most frequent first, unless nobody is to blame.
pub fn failed_attempts(state: &State) -> Vec<Reason> {
    sorted(state.setbacks.iter().map(|(work, reasons)| (work.as_str(), reasons.clone())).collect())
}

fn sorted(counts: BTreeMap<&str, BTreeMap<String, u64>>) -> Vec<Reason> {
    let of = |(work, reasons): (&str, BTreeMap<String, u64>)| {
        let work = work.to_owned();
        reasons.into_iter().map(move |(reason, count)| Reason { work: work.clone(), reason, count })
    };
    let mut all: Vec<Reason> = counts.into_iter().flat_map(of).collect();
    all.sort_by_key(|r| std::cmp::Reverse(r.count));
    all
}

/// Prompts that were left out, by model and kind of reason.
pub fn left_out(state: &State) -> Vec<LeftOut> {
    let Some(campaign) = &state.campaign else { return Vec::new() };
    let of = |(name, model)| {
        let places = state.skipped.get(&model).into_iter().flatten();
        let each = places.flat_map(|(at, reasons)| reasons.iter().map(|reason| (*at, *reason)));
        let skipped: Vec<Skipped> = each
            .filter_map(|(at, reason)| Some(Skipped { id: campaign.id(at)?.to_owned(), reason }))
            .collect();
        SkipGroup::of(&skipped)
            .into_iter()
            .map(move |group| LeftOut::new(name, group))
            .collect::<Vec<_>>()
    };
    let student = campaign.student.map(|student| ("student", student));
    [("teacher", campaign.teacher)].into_iter().chain(student).flat_map(of).collect()
}

impl LeftOut {
    fn new(model: &str, group: SkipGroup) -> Self {
        let text = format!("by the {model}, {group}");
        Self {
            model: model.to_owned(),
            reason: group.reason.name().to_owned(),
            ids: group.ids,
            text,
        }
    }
}

/// `what`, and why: the reasons of the tasks of these kinds of work that were given up, and the
/// prompts left out.
pub(crate) fn because(state: &State, what: &str, work: &[&str]) -> String {
    let tasks = given_up(state).into_iter().filter(|r| work.contains(&r.work.as_str()));
    let tasks = tasks.map(|r| r.to_string());
    let why: Vec<String> = tasks.chain(left_out(state).into_iter().map(|l| l.text)).collect();
    if why.is_empty() { what.to_owned() } else { format!("{what}: {}", why.join("; ")) }
}

//! How alike the masks of two runs on other prompts of the same kind would be.
//!
//! The overlap with the version before says how steady one run is; errors of scores say how sure
//! each score is, if their model holds. Neither says what a second run would find. This does: the
//! evidence of every prompt is counted anew, 0, 1, 2, .. times (the Poisson bootstrap: Chamandy et
//! al. 2012), in [`REPLICATES`] replicates side by side, and each draws a mask by the same rule.
//! Whole prompts are drawn, so whatever a prompt says of all units and statistics stays together.
//!
//! Nothing is decided by it, and it is no part of the state: whoever wants it shows it the ledger's
//! records. What is not in it: that a second run would also choose other prompts for exact runs,
//! and that the mask of the day clings to the one before (`mask::settle`). Kinds of unit whose
//! deposits hold moments have no values per prompt, and no such figure.

use crate::combine::score;
use crate::mask::{Budget, build, jaccard};
use crate::state::Trails;
use crate::{CampaignConfig, Dice, PlannedTask, Record, State};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Answer, Column, Deposit, LossRow, Outcome, TaskId, Unit};

/// Replicates: their neighbours make as many pairs.
pub const REPLICATES: usize = 24;

/// The evidence, drawn anew so many times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resampled {
    campaign: Option<CampaignConfig>,
    /// Tasks that may bring evidence.
    tasks: BTreeMap<TaskId, PlannedTask>,
    replicates: Vec<Replicate>,
}

/// One drawing of the prompts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Replicate {
    trails: Trails,
    /// What came since the last close.
    gathered: Trails,
}

impl Default for Resampled {
    fn default() -> Self {
        let replicates = (0..REPLICATES).map(|_| Replicate::default()).collect();
        Self { campaign: None, tasks: BTreeMap::new(), replicates }
    }
}

impl Resampled {
    /// Takes one of the ledger's records in, as [`State::fold`] does.
    pub fn note(&mut self, record: &Record) {
        match record {
            Record::Founded(founding) => self.found(&founding.campaign),
            Record::Amended(amendment) => self.under(&amendment.campaign),
            Record::EpochOpened { stage, tasks, .. } if stage.is_probe() => {
                self.tasks.extend(tasks.iter().map(|task| (task.id, task.clone())));
            }
            Record::Accepted { answer } => self.gather(answer),
            Record::EpochClosed { .. } => self.close(),
            Record::Snapshot(snapshot) => self.clone_from(&snapshot.resampled),
            _ => {}
        }
    }

    /// Evidence on the same teacher lives on.
    fn found(&mut self, campaign: &CampaignConfig) {
        let same = |c: &CampaignConfig| c.teacher == campaign.teacher && c.shape == campaign.shape;
        if !self.campaign.as_ref().is_some_and(same) {
            *self = Self::default();
        }
        self.tasks.clear();
        self.under(campaign);
    }

    /// Its prompts are many, and not asked for here.
    fn under(&mut self, campaign: &CampaignConfig) {
        self.campaign = Some(CampaignConfig { prompts: Vec::new(), ..campaign.clone() });
    }

    /// The first answer counts: a task is forgotten with it.
    fn gather(&mut self, answer: &Answer) {
        let Some(task) = self.tasks.remove(&answer.task) else { return };
        let seed = self.campaign.as_ref().map_or(0, |c| c.seed);
        let counts: Vec<[u8; REPLICATES]> =
            ids(&answer.outcome).into_iter().map(|id| counts(seed, id)).collect();
        for (at, replicate) in self.replicates.iter_mut().enumerate() {
            let of = |counts: &[u8; REPLICATES]| counts.get(at).copied().unwrap_or(1);
            let counts: Vec<u8> = counts.iter().map(of).collect();
            replicate.gathered.gather(&task, &drawn(&answer.outcome, &counts));
        }
    }

    fn close(&mut self) {
        let Some(evaporation) = self.campaign.as_ref().map(|c| c.probe.evaporation) else { return };
        for replicate in &mut self.replicates {
            let gathered = std::mem::take(&mut replicate.gathered);
            replicate.trails.close(evaporation, gathered);
        }
    }

    /// The mean overlap of two runs' masks; none before there is evidence prompt by prompt.
    pub fn overlap(&self) -> Option<f64> {
        let campaign = self.campaign.as_ref()?;
        let budget = Budget::of(campaign);
        let mask = |replicate: &Replicate| -> Option<BTreeSet<Unit>> {
            let scored = score(&replicate.trails, &campaign.shape, campaign.mask.kind)?;
            Some(build(&budget, &scored.scores))
        };
        let masks: Vec<BTreeSet<Unit>> = self.replicates.iter().map(mask).collect::<Option<_>>()?;
        let next = masks.iter().cycle().skip(1);
        let overlaps: f64 = masks.iter().zip(next).map(|(a, b)| jaccard(a, b)).sum();
        Some(overlaps / masks.len() as f64)
    }
}

/// The overlap, from a ledger's records alone.
pub fn overlap<'a>(records: impl IntoIterator<Item = &'a Record>) -> Option<f64> {
    let mut resampled = Resampled::default();
    records.into_iter().for_each(|record| resampled.note(record));
    resampled.overlap()
}

/// How often each replicate counts a prompt: Poisson with mean 1, the same wherever the prompt is
/// met.
fn counts(seed: u64, id: &str) -> [u8; REPLICATES] {
    let mut dice = Dice::new(seed, &format!("resample {id}"), 0);
    std::array::from_fn(|_| poisson(dice.unit()))
}

/// The smallest count whose distribution function exceeds `u`.
fn poisson(u: f64) -> u8 {
    let (mut count, mut term) = (0u8, 1.0 / std::f64::consts::E);
    let mut sum = term;
    while u >= sum && count < 12 {
        count += 1;
        term /= f64::from(count);
        sum += term;
    }
    count
}

/// The prompts that an outcome has values of.
fn ids(outcome: &Outcome) -> Vec<&str> {
    let prompts = match outcome {
        Outcome::Scores(deposit) => Some(&deposit.prompts),
        Outcome::Losses(rows) => rows.first().map(|row| &row.prompts),
        _ => None,
    };
    prompts.into_iter().flatten().map(|p| p.id.as_str()).collect()
}

/// The outcome with each prompt so many times.
fn drawn(outcome: &Outcome, counts: &[u8]) -> Outcome {
    match outcome {
        Outcome::Scores(deposit) => Outcome::Scores(Deposit {
            prompts: repeated(&deposit.prompts, counts),
            columns: deposit.columns.iter().map(|c| column(c, counts)).collect(),
            moments: Vec::new(),
        }),
        Outcome::Losses(rows) => {
            Outcome::Losses(rows.iter().map(|row| losses(row, counts)).collect())
        }
        other => other.clone(),
    }
}

fn column(column: &Column, counts: &[u8]) -> Column {
    Column { values: repeated(&column.values, counts), ..*column }
}

fn losses(row: &LossRow, counts: &[u8]) -> LossRow {
    LossRow {
        prompts: repeated(&row.prompts, counts),
        nats: repeated(&row.nats, counts),
        bytes: repeated(&row.bytes, counts),
        right: repeated(&row.right, counts),
        pace: row.pace,
    }
}

fn repeated<T: Clone>(items: &[T], counts: &[u8]) -> Vec<T> {
    let times = |(item, n): (&T, &u8)| std::iter::repeat_n(item.clone(), usize::from(*n));
    items.iter().zip(counts).flat_map(times).collect()
}

/// How alike masks are, by what is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// Overlap with the version before: how steady this run is. None of a first version.
    pub version_before: Option<f64>,
    /// Expected overlap of the masks of two runs on other prompts of the same kind.
    pub two_runs: Option<f64>,
}

impl Stability {
    /// Of the mask of the day.
    pub fn of(state: &State, resampled: &Resampled) -> Option<Self> {
        let version_before = state.mask()?.jaccard;
        Some(Self { version_before, two_runs: resampled.overlap() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_poisson_and_belong_to_the_prompt() {
        let all: Vec<u8> = (0..500).flat_map(|i| counts(4, &i.to_string())).collect();
        let share = |n: u8| all.iter().filter(|c| **c == n).count() as f64 / all.len() as f64;
        let e = 1.0 / std::f64::consts::E;
        for (n, want) in [(0, e), (1, e), (2, e / 2.0), (3, e / 6.0)] {
            assert!((share(n) - want).abs() < 0.01, "{n}: {}", share(n));
        }
        assert_eq!(counts(4, "7"), counts(4, "7"));
        assert_ne!(counts(4, "7"), counts(4, "8"));
    }

    #[test]
    fn prompts_are_drawn_whole() {
        let prompts = ["a", "b", "c"]
            .map(|id| uspx_domain::PromptTokens { id: id.into(), tokens: 2 })
            .to_vec();
        let row = LossRow {
            prompts,
            nats: vec![1.0, 2.0, 3.0],
            bytes: vec![4, 5, 6],
            ..LossRow::default()
        };
        let Outcome::Losses(rows) = drawn(&Outcome::Losses(vec![row]), &[2, 0, 1]) else {
            panic!("another kind")
        };
        assert_eq!((&rows[0].nats[..], &rows[0].bytes[..]), (&[1.0, 1.0, 3.0][..], &[4, 4, 6][..]));
        let ids: Vec<&str> = rows[0].prompts.iter().map(|p| p.id.as_str()).collect();
        assert_eq!(ids, ["a", "a", "c"]);
    }
}

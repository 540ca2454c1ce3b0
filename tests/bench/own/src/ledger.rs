//! What a ledger says was measured.

use crate::error::Result;
use std::collections::BTreeMap;
use std::path::Path;
use uspx_colony::{Blame, Record};
use uspx_coordinator::Ledger;
use uspx_domain::{Outcome, PromptTokens, TaskId};

/// Prompts measured by each estimator, and what went wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Prompts of accepted deposits, by the estimator's name.
    pub prompts: BTreeMap<String, usize>,
    /// Tasks answered by each worker.
    pub answered: BTreeMap<String, usize>,
    /// Tokens of accepted answers' prompts, each prompt counted as often as it ran (once for every cut).
    pub tokens: u64,
    /// Milliseconds that each worker says it worked on what was accepted.
    pub worked: BTreeMap<String, u64>,
    /// Prompts of the largest task, by the kind of work.
    pub largest: BTreeMap<String, usize>,
    /// Attempts that came to nothing, but for those that nobody is to blame for.
    pub failed: usize,
    /// Records that a snapshot stands for: what they measured is in none of these figures.
    pub folded: u64,
}

/// Reads a ledger that nobody holds any more.
///
/// # Errors
/// It cannot be read.
pub fn measured(path: &Path) -> Result<Measured> {
    let mut records = Vec::new();
    Ledger::open(path, |record| records.push(record))?;
    Ok(tally(&records))
}

fn tally(records: &[Record]) -> Measured {
    let mut found = Measured::default();
    let mut names: BTreeMap<TaskId, String> = BTreeMap::new();
    for record in records {
        match record {
            Record::EpochOpened { tasks, .. } => {
                for task in tasks {
                    let (name, prompts) = (task.work.name().to_owned(), task.work.prompts().len());
                    let largest = found.largest.entry(name.clone()).or_default();
                    *largest = prompts.max(*largest);
                    names.insert(task.id, name);
                }
            }
            Record::Accepted { answer } => {
                *found.answered.entry(answer.worker.to_string()).or_default() += 1;
                *found.worked.entry(answer.worker.to_string()).or_default() += answer.millis;
                found.tokens += tokens(&answer.outcome);
                let deposit =
                    if let Outcome::Scores(deposit) = &answer.outcome { deposit } else { continue };
                let name = names.get(&answer.task).cloned().unwrap_or_default();
                *found.prompts.entry(name).or_default() += deposit.prompts.len();
            }
            Record::Snapshot(snapshot) => {
                found = Measured { folded: snapshot.records, ..Measured::default() };
                let open = snapshot.state.tickets().values().map(|ticket| &ticket.task);
                names = open.map(|task| (task.id, task.work.name().to_owned())).collect();
            }
            Record::Lost { cause, .. } if cause.blame() != Blame::Nobody => found.failed += 1,
            _ => {}
        }
    }
    found
}

/// Tokens that ran for an answer that measures.
fn tokens(outcome: &Outcome) -> u64 {
    let of = |prompts: &[PromptTokens]| prompts.iter().map(|p| u64::from(p.tokens)).sum::<u64>();
    match outcome {
        Outcome::Scores(deposit) => of(&deposit.prompts),
        Outcome::Losses(rows) => rows.iter().map(|row| of(&row.prompts)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_colony::{Cause, PlannedTask, Purpose, Stage};
    use uspx_domain::{
        Answer, Baseline, Deposit, Digest, Estimate, Estimator, FailureReason, Fingerprint,
        LossRow, Work,
    };

    #[test]
    fn prompts_are_counted_where_their_answers_were_accepted() {
        let estimate = Estimate {
            prompts: vec![0, 1, 2],
            estimator: Estimator::TRACE,
            kinds: vec![],
            baseline: Baseline::Zero,
        };
        let model = Fingerprint(Digest::of(b"teacher"));
        let piece = (model, Purpose::Evidence, Work::Estimate(estimate));
        let task = PlannedTask::new(Digest::of(b"campaign"), (1, 0), piece);
        let tokens = |id: &str| PromptTokens { id: id.into(), tokens: 3 };
        let deposit = Deposit { prompts: vec![tokens("a"), tokens("b")], ..Deposit::default() };
        let worker: uspx_domain::WorkerId = "w".parse().unwrap();
        let answer = Answer {
            task: task.id,
            worker: worker.clone(),
            outcome: Outcome::Scores(deposit),
            millis: 1,
            skipped: vec![],
            seams: 0,
        };
        let lost = |cause| Record::Lost { task: answer.task, worker: worker.clone(), cause };
        let records = [
            lost(Cause::WorkerLost),
            lost(Cause::Failed(FailureReason::NoMemory.into())),
            Record::EpochOpened { epoch: 1, stage: Stage::Trace, tasks: vec![task] },
            Record::Accepted { answer: Box::new(answer.clone()) },
        ];
        let found = tally(&records);
        assert_eq!((found.prompts["trace"], found.largest["trace"], found.failed), (2, 3, 1));
        assert_eq!((found.answered["w"], found.worked["w"], found.tokens), (1, 1, 6));
        let row = LossRow { prompts: vec![tokens("a"), tokens("b")], ..LossRow::default() };
        assert_eq!(
            super::tokens(&Outcome::Losses(vec![row; 3])),
            18,
            "each prompt ran three times"
        );
    }
}

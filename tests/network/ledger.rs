//! A ledger, read after the fact: every task answered exactly once, nothing given up.

use std::collections::BTreeMap;
use std::path::Path;
use uspx_colony::{Cause, Record, State};
use uspx_coordinator::Ledger;
use uspx_coordinator::ledger::{head_path, replay_file};
use uspx_domain::{TaskId, WorkerId};

/// All records of a ledger that nobody holds any more.
pub fn records(path: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    Ledger::open(path, |record| records.push(record)).unwrap();
    records
}

/// How often each planned task was accepted.
pub fn acceptances(records: &[Record]) -> BTreeMap<TaskId, u32> {
    let mut times = BTreeMap::new();
    for record in records {
        match record {
            Record::EpochOpened { tasks, .. } => times.extend(tasks.iter().map(|t| (t.id, 0))),
            Record::Accepted { answer } => {
                *times.get_mut(&answer.task).expect("an unknown task was accepted") += 1
            }
            _ => {}
        }
    }
    times
}

/// The campaign is over; every task was answered once, no more and no less.
pub fn assert_exactly_once(records: &[Record]) {
    let times = acceptances(records);
    assert!(times.len() > 30, "a campaign of {} tasks", times.len());
    let wrong: Vec<_> = times.iter().filter(|(_, n)| **n != 1).collect();
    assert!(wrong.is_empty(), "not accepted once: {wrong:?}");
    for record in records {
        assert!(
            !matches!(record, Record::GivenUp { .. } | Record::Quarantined { .. }),
            "{record:?}"
        );
    }
}

/// Attempts of `worker` that came to nothing, with their causes.
pub fn losses(records: &[Record], worker: &str) -> Vec<(TaskId, Cause)> {
    let of = |r: &Record| match r {
        Record::Lost { task, worker: who, cause } if who.as_str() == worker => {
            Some((*task, cause.clone()))
        }
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

/// To whom a task went, in order, comparisons left out.
pub fn ways(records: &[Record], wanted: TaskId) -> Vec<WorkerId> {
    let of = |r: &Record| match r {
        Record::Issued { task, worker, duplicate: false, .. } if *task == wanted => {
            Some(worker.clone())
        }
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

/// Invariant 1 across machines: a copy elsewhere replays to the same state, and to the mask that
/// the living coordinator wrote down.
pub fn assert_replays_elsewhere(ledger: &Path, mask: &Path) -> State {
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copied");
    std::fs::copy(ledger, &copy).unwrap();
    std::fs::copy(head_path(ledger), head_path(&copy)).unwrap();
    let (here, there) = (replay_file(ledger).unwrap(), replay_file(&copy).unwrap());
    assert_eq!(here.digest().unwrap(), there.digest().unwrap());
    let written: uspx_domain::Mask = serde_json::from_slice(&std::fs::read(mask).unwrap()).unwrap();
    assert_eq!(there.mask().expect("a mask").mask, written);
    there
}

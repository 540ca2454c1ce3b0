//! Invariant 1 step by step: a thousand ways through small ledgers, from any record on, come to the
//! same bytes.

use crate::world::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::OnceLock;
use uspx_colony::*;
use uspx_domain::Outcome;

/// A ledger, and what is known after each of its records.
struct Steps {
    ledger: Vec<Record>,
    /// After so many records: the state's bytes, and the digest of trails, pheromone and mask.
    after: Vec<(Vec<u8>, uspx_domain::Digest)>,
}

impl Steps {
    fn of(config: CampaignConfig) -> Self {
        let ledger = honest(config).0.ledger;
        let mut state = State::default();
        let known = |state: &State| (state.snapshot().unwrap(), state.evidence_digest().unwrap());
        let mut after = vec![known(&state)];
        for record in &ledger {
            state.fold(record);
            after.push(known(&state));
        }
        Self { ledger, after }
    }

    /// From record `at` to the close of the epoch that it lies in, if it lies in one.
    fn to_the_close(&self, at: usize) -> Range<usize> {
        let is_close = |record: &Record| matches!(record, Record::EpochClosed { .. });
        let close = self.ledger[at..].iter().position(is_close);
        at..close.map_or(self.ledger.len(), |n| at + n + 1)
    }

    /// The acceptances of an epoch up to its close at `end`.
    fn accepted(&self, end: usize) -> Vec<&Record> {
        let before = self.ledger[..end].iter().rev();
        let of_epoch = before.take_while(|record| !matches!(record, Record::EpochOpened { .. }));
        of_epoch.filter(|record| matches!(record, Record::Accepted { .. })).collect()
    }
}

/// Small campaigns: as the colony runs one, and one whose exact runs go where they tell most.
fn ledgers() -> &'static [Steps; 2] {
    static LEDGERS: OnceLock<[Steps; 2]> = OnceLock::new();
    LEDGERS.get_or_init(|| {
        let mut led = service::small("steps, led");
        led.mind = campaign::MindPlan::default();
        [Steps::of(service::small("steps")), Steps::of(led)]
    })
}

/// The same worker's later answer, which must not matter.
fn falsified(record: &Record) -> Record {
    let Record::Accepted { answer } = record else { return record.clone() };
    let mut answer = answer.clone();
    match &mut answer.outcome {
        Outcome::Losses(rows) => rows.iter_mut().flat_map(|r| &mut r.nats).for_each(|x| *x += 1.0),
        Outcome::Scores(deposit) => {
            deposit.columns.iter_mut().flat_map(|c| &mut c.values).for_each(|x| *x += 1.0);
        }
        _ => {}
    }
    Record::Accepted { answer }
}

/// The records with their acceptances in another order at the end, then some of the epoch's again
/// with other numbers, then the close. Comparisons come after what they compare with.
fn shuffled(steps: &Steps, range: Range<usize>, dice: &mut Dice) -> Vec<Record> {
    let end = range.end;
    let Some((close, records)) = steps.ledger[range].split_last() else { return Vec::new() };
    let accepts = |record: &&Record| matches!(record, Record::Accepted { .. });
    let compares = |record: &&Record| matches!(record, Record::Compared { .. });
    let (late, mut out): (Vec<&Record>, Vec<&Record>) =
        records.iter().partition(|record| accepts(record) || compares(record));
    let (mut accepted, compared): (Vec<&Record>, Vec<&Record>) =
        late.into_iter().partition(accepts);
    dice.shuffle(&mut accepted);
    out.extend(accepted);
    out.extend(compared);
    let again = steps.accepted(end).into_iter().filter(|_| dice.below(3) == 0).map(falsified);
    let again: Vec<Record> = again.collect();
    out.into_iter().cloned().chain(again).chain([close.clone()]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Order and duplication of deposits within an epoch do not matter, and a state that was written
    /// down after any record goes on as if it had not been.
    #[test]
    fn invariant_1_a_thousand_orders_and_snapshots_come_to_the_same_bytes(
        seed: u64,
        which in 0usize..2,
        at: prop::sample::Index,
    ) {
        let steps = &ledgers()[which];
        let range = steps.to_the_close(at.index(steps.ledger.len()));
        let mut state = State::restore(&steps.after[range.start].0).unwrap();
        let (bytes, evidence) = &steps.after[range.end];
        let mut dice = Dice::new(seed, "steps", 0);
        for record in shuffled(steps, range, &mut dice) {
            state.fold(&record);
        }
        prop_assert_eq!(&state.evidence_digest().unwrap(), evidence, "trails, pheromone or mask");
        prop_assert!(&state.snapshot().unwrap() == bytes, "the state differs");
    }
}

/// What a ledger's reader makes of records.
fn read(state: &mut State, records: &[Record]) {
    records.iter().for_each(|record| state.fold(record));
}

fn snapshot(state: &State, records: usize) -> Snapshot {
    let snapshot = Snapshot::of(records as u64, state, BTreeSet::new()).unwrap();
    assert!(snapshot.is_as_written().unwrap());
    snapshot
}

/// To the end of the ledger, from snapshots all over it; as records of a ledger are written.
#[test]
fn invariant_1_a_snapshot_stands_for_all_records_before_it() {
    for steps in ledgers() {
        let mut whole = State::default();
        read(&mut whole, &steps.ledger);
        let mut before = State::default();
        for (at, record) in steps.ledger.iter().enumerate() {
            before.fold(record);
            if at % 29 != 3 {
                continue;
            }
            let snapshot = Record::Snapshot(Box::new(snapshot(&before, at + 1)));
            let bytes = rmp_serde::to_vec_named(&snapshot).unwrap();
            let mut after = State::default();
            after.fold(&rmp_serde::from_slice(&bytes).unwrap());
            read(&mut after, &steps.ledger[at + 1..]);
            assert!(after.snapshot().unwrap() == whole.snapshot().unwrap(), "{at}");
        }
    }
}

/// A part of a state that is not in this version's is not dropped without a word.
#[test]
fn a_snapshot_that_is_read_otherwise_says_so() {
    let mut state = State::default();
    read(&mut state, &ledgers()[0].ledger[..40]);
    let mut other = snapshot(&state, 40);
    other.state.fold(&ledgers()[0].ledger[40]);
    assert!(!other.is_as_written().unwrap());
}

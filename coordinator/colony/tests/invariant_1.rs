//! Invariant 1: the ledger is the truth and replays bit-identically.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod world;

use proptest::prelude::*;
use std::sync::OnceLock;
use uspx_colony::*;
use uspx_domain::Outcome;
use world::*;

/// An honest campaign's ledger, made once.
fn ledger() -> &'static Vec<Record> {
    static LEDGER: OnceLock<Vec<Record>> = OnceLock::new();
    LEDGER.get_or_init(|| honest(campaign("replayed")).0.ledger)
}

fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> State {
    let mut state = State::default();
    records.into_iter().for_each(|r| state.fold(r));
    state
}

/// The same ledger with each epoch's acceptances in another order, and some of them again later, with other numbers.
fn shuffled(ledger: &[Record], dice: &mut Dice) -> Vec<Record> {
    let (mut out, mut held) = (Vec::new(), Vec::new());
    for record in ledger {
        match record {
            Record::Accepted { .. } => held.push(record.clone()),
            Record::EpochClosed { .. } => {
                dice.shuffle(&mut held);
                let again: Vec<Record> = held.iter().filter(|_| dice.below(4) == 0).map(falsified).collect();
                out.append(&mut held);
                out.extend(again);
                out.push(record.clone());
            }
            _ => out.push(record.clone()),
        }
    }
    out
}

/// The same worker's later answer, which must not matter.
fn falsified(record: &Record) -> Record {
    let Record::Accepted { answer } = record else { return record.clone() };
    let mut answer = answer.clone();
    match &mut answer.outcome {
        Outcome::Losses(rows) => rows.iter_mut().flat_map(|r| &mut r.nats).for_each(|x| *x += 1.0),
        Outcome::Scores(d) => d.columns.iter_mut().flat_map(|c| &mut c.values).for_each(|x| *x += 1.0),
        _ => {}
    }
    Record::Accepted { answer }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn invariant_1_replay_is_bit_identical(seed: u64, crashes in prop::collection::vec(0usize..2000, 0..5)) {
        let truth = replay(ledger()).snapshot().unwrap();
        let mut state = State::default();
        for (at, record) in shuffled(ledger(), &mut Dice::new(seed, "shuffle", 0)).iter().enumerate() {
            if crashes.contains(&at) {
                state = State::restore(&state.snapshot().unwrap()).unwrap();
            }
            state.fold(record);
        }
        prop_assert!(state.snapshot().unwrap() == truth, "the replayed state differs");
    }
}

/// The bytes of trails and mask are pinned, so that another machine, compiler or version that comes to others is found out.
#[test]
fn invariant_1_the_digest_is_the_same_on_every_machine() {
    let state = replay(ledger());
    let mask = state.mask().unwrap();
    assert_eq!(mask.version, PINNED.0);
    assert_eq!(state.evidence_digest().unwrap().hex(), PINNED.1);
}

const PINNED: (u32, &str) = (5, "b4c3cc5a3a050615353bcaa7f058afab0b1fe771fc6565479e7bafde7ffeed3f");

#[test]
fn the_live_state_is_the_replayed_one() {
    let (service, _) = honest(campaign("live"));
    assert_eq!(replay(&service.ledger).digest().unwrap(), service.colony.state().digest().unwrap());
}

#[test]
fn a_record_survives_the_wire() {
    let state = replay(ledger());
    let again: Vec<Record> =
        ledger().iter().map(|r| rmp_serde::from_slice(&rmp_serde::to_vec_named(r).unwrap()).unwrap()).collect();
    assert_eq!(&again, ledger());
    assert_eq!(replay(&again).digest().unwrap(), state.digest().unwrap());
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let bytes = replay(ledger()).snapshot().unwrap();
    assert!(State::restore(&bytes[..bytes.len() / 2]).is_err());
    assert!(State::restore(b"").is_err());
}

/// Invariant 7, as far as the ledger goes: a planned task has places of prompts, and gets text only when attached.
#[test]
fn invariant_7_the_ledger_has_no_prompt_text() {
    let config = campaign("private");
    let mut colony = Colony::default();
    let found = colony.found(config.clone()).unwrap();
    let Some(Record::EpochOpened { tasks, .. }) = found.records.last() else { panic!("no epoch") };
    let secret = |id: &str| {
        let text = format!("secret of {id}");
        Some(uspx_domain::Prompt { id: id.into(), prompt: text, reference: None, system: None, tags: vec![] })
    };
    let task = tasks[0].attach(&config, secret).unwrap();
    assert_eq!(task.work.prompts().len(), tasks[0].work.prompts().len());
    assert_eq!(task.work.prompts()[0].prompt, "secret of p0");
    assert_eq!(tasks[0].attach(&config, |_| None), Err(AttachError::NoText("p0".into())));
}

//! Invariant 1: the ledger is the truth and replays bit-identically.

use crate::world::*;
use proptest::prelude::*;
use std::sync::OnceLock;
use uspx_colony::*;
use uspx_domain::Outcome;

/// An honest campaign's ledger, made once.
fn ledger() -> &'static Vec<Record> {
    static LEDGER: OnceLock<Vec<Record>> = OnceLock::new();
    LEDGER.get_or_init(|| honest(campaign("replayed")).0.ledger)
}

/// That of one whose exact runs go where they tell most.
fn led() -> &'static Vec<Record> {
    static LEDGER: OnceLock<Vec<Record>> = OnceLock::new();
    let led = || {
        let mut config = campaign("replayed and led");
        config.mind = campaign::MindPlan::default();
        honest(config).0.ledger
    };
    LEDGER.get_or_init(led)
}

fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> State {
    let mut state = State::default();
    records.into_iter().for_each(|r| state.fold(r));
    state
}

/// The same ledger with each epoch's acceptances in another order, and some of them again later,
/// with other numbers. Comparisons come after what they compare with.
fn shuffled(ledger: &[Record], dice: &mut Dice) -> Vec<Record> {
    let (mut out, mut held, mut compared) = (Vec::new(), Vec::new(), Vec::new());
    for record in ledger {
        match record {
            Record::Accepted { .. } => held.push(record.clone()),
            Record::Compared { .. } => compared.push(record.clone()),
            Record::EpochClosed { .. } => {
                dice.shuffle(&mut held);
                let again: Vec<Record> =
                    held.iter().filter(|_| dice.below(4) == 0).map(falsified).collect();
                out.append(&mut held);
                out.append(&mut compared);
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
        Outcome::Scores(d) => {
            d.columns.iter_mut().flat_map(|c| &mut c.values).for_each(|x| *x += 1.0)
        }
        _ => {}
    }
    Record::Accepted { answer }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn invariant_1_replay_is_bit_identical(
        seed: u64,
        is_led: bool,
        crashes in prop::collection::vec(0usize..2000, 0..5),
    ) {
        let ledger = if is_led { led() } else { ledger() };
        let truth = replay(ledger).snapshot().unwrap();
        let mut state = State::default();
        for (at, record) in shuffled(ledger, &mut Dice::new(seed, "shuffle", 0)).iter().enumerate() {
            if crashes.contains(&at) {
                state = State::restore(&state.snapshot().unwrap()).unwrap();
            }
            state.fold(record);
        }
        prop_assert!(state.snapshot().unwrap() == truth, "the replayed state differs");
    }
}

/// The bytes of trails and mask are pinned, so that another machine, compiler or version that comes
/// to others is found out.
#[test]
fn invariant_1_the_digest_is_the_same_on_every_machine() {
    let state = replay(ledger());
    let mask = state.mask().unwrap();
    assert_eq!(mask.version, PINNED.0);
    assert_eq!(state.evidence_digest().unwrap().hex(), PINNED.1);
}

const PINNED: (u32, &str) = (5, "970a654c4bf1fc0685099d7710fae2f914713621979b9c1e43f6833db7502de3");

/// What an epoch decided is taken from its record: other rules cannot make another mask of it, and
/// say so.
#[test]
fn invariant_1_recorded_decisions_stand_whatever_todays_rules_say() {
    let mut records = ledger().clone();
    let (mut closed, mut other) = (0, None);
    for record in &mut records {
        let Record::EpochClosed { epoch, decision: Some(decision), .. } = record else { continue };
        closed += 1;
        if closed == 3 {
            // As a rule that keeps other units would have decided.
            let budget = mask::Budget { keep: Share::percent(50), ..mask::Budget::of(config()) };
            decision.mask = mask::random_mask(&mut Dice::new(1, "other", 0), &budget);
            other = Some((*epoch, decision.mask.clone()));
        }
    }
    let (epoch, mask) = other.unwrap();
    let mut state = State::default();
    for record in &records {
        state.fold(record);
        if matches!(record, Record::EpochClosed { epoch: e, .. } if *e == epoch) {
            assert_eq!(state.mask().unwrap().mask, mask);
        }
    }
    assert!(state.deviations().contains(&epoch), "{:?}", state.deviations());
    assert_eq!(replay(ledger()).deviations().len(), 0);
    let last = |records: &[Record]| {
        let decisions = records.iter().rev().find_map(|r| match r {
            Record::EpochClosed { decision: Some(decision), .. } => Some(decision.mask.clone()),
            _ => None,
        });
        decisions.unwrap()
    };
    assert_eq!(state.mask().unwrap().mask, last(&records), "it goes on from what is recorded");
}

fn config() -> &'static CampaignConfig {
    let founded = ledger().iter().find_map(|r| match r {
        Record::Founded(founding) => Some(&founding.campaign),
        _ => None,
    });
    founded.unwrap()
}

/// Tasks of the same campaign founded again, or with one prompt edited, bear other names.
#[test]
fn invariant_1_names_bind_content() {
    let ids = |config: CampaignConfig, nonce| -> Vec<uspx_domain::TaskId> {
        let step = Colony::default().want(config, nonce).unwrap().1;
        let Some(Record::EpochOpened { tasks, .. }) = step.records.last() else { panic!() };
        tasks.iter().map(|t| t.id).collect()
    };
    let first = ids(campaign("one"), [1; 16]);
    assert_eq!(first, ids(campaign("one"), [1; 16]));
    let mut edited = campaign("one");
    edited.prompts[0].digest = uspx_domain::Digest::of(b"edited");
    for others in [ids(campaign("one"), [2; 16]), ids(edited, [1; 16])] {
        assert!(others.iter().all(|id| !first.contains(id)));
    }
}

#[test]
fn the_live_state_is_the_replayed_one() {
    let (service, _) = honest(campaign("live"));
    assert_eq!(replay(&service.ledger).digest().unwrap(), service.colony.state().digest().unwrap());
}

#[test]
fn a_record_survives_the_wire() {
    let state = replay(ledger());
    let again: Vec<Record> = ledger()
        .iter()
        .map(|r| rmp_serde::from_slice(&rmp_serde::to_vec_named(r).unwrap()).unwrap())
        .collect();
    assert_eq!(&again, ledger());
    assert_eq!(replay(&again).digest().unwrap(), state.digest().unwrap());
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let bytes = replay(ledger()).snapshot().unwrap();
    assert!(State::restore(&bytes[..bytes.len() / 2]).is_err());
    assert!(State::restore(b"").is_err());
}

/// Invariant 7, as far as the ledger goes: a planned task has places of prompts, and gets text only
/// when attached.
#[test]
fn invariant_7_the_ledger_has_no_prompt_text() {
    let config = campaign("private");
    let mut colony = Colony::default();
    let found = colony.want(config.clone(), [1; 16]).unwrap().1;
    let Some(Record::EpochOpened { tasks, .. }) = found.records.last() else { panic!("no epoch") };
    let secret = |id: &str| Some(prompt(id));
    let task = tasks[0].attach(&config, secret).unwrap();
    assert_eq!(task.work.prompts().len(), tasks[0].work.prompts().len());
    assert_eq!(task.work.prompts()[0].prompt, "secret of p0");
    assert_eq!(tasks[0].attach(&config, |_| None), Err(AttachError::NoText("p0".into())));
    let edited = |id: &str| Some(uspx_domain::Prompt { prompt: "other".into(), ..prompt(id) });
    assert_eq!(tasks[0].attach(&config, edited), Err(AttachError::Edited("p0".into())));
}

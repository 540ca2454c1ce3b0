//! A small ledger, exhaustively: every byte changed, every cut, every zeroing, every record moved,
//! whatever the head says.

use super::sim::Sim;
use super::{first_change, places, record_at};
use crate::ServiceError;
use crate::ledger::log::Log;
use crate::ledger::{Damage, Fault};

const RECORDS: [&[u8]; 5] = [b"one", b"", b"record three", b"0000", b"\0\0\0"];

/// The ledger, and its head after each append (the first: before any).
fn small() -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut sim = Sim::empty();
    sim.open().unwrap();
    let mut heads = vec![sim.head().to_vec()];
    for record in RECORDS {
        Log::open(&mut sim, |_, _| Ok(())).unwrap().append(&[record]).unwrap();
        heads.push(sim.head().to_vec());
    }
    (sim.ledger().to_vec(), heads)
}

fn open(ledger: &[u8], head: &[u8]) -> (Result<Vec<Vec<u8>>, ServiceError>, Sim) {
    let mut sim = Sim::holding([Some(ledger.to_vec()), Some(head.to_vec())]);
    (sim.open(), sim)
}

fn damage(ledger: &[u8], head: &[u8]) -> Damage {
    match open(ledger, head).0 {
        Err(ServiceError::Damaged { damage, .. }) => damage,
        other => panic!("not refused as damaged: {other:?}"),
    }
}

/// A change up to the head is damage, with its place; one beyond it is a tail, kept aside.
fn judge(whole: &[u8], changed: &[u8], synced: usize, head: &[u8]) {
    let places = places(whole);
    let Some(change) = first_change(whole, changed) else {
        assert_eq!(open(changed, head).0.unwrap(), RECORDS);
        return;
    };
    let (sequence, at) = record_at(&places, change);
    if sequence as usize <= synced {
        let found = damage(changed, head);
        assert_eq!(
            (found.at, found.sequence),
            (at, sequence),
            "{found:?} for a change at {change}"
        );
        return;
    }
    let (records, sim) = open(changed, head);
    assert_eq!(records.unwrap(), RECORDS[..sequence as usize - 1]);
    assert_eq!(sim.ledger(), &whole[..at as usize]);
    let tail = &changed[at as usize..];
    let copies: Vec<_> =
        (!tail.is_empty()).then(|| (sequence, tail.to_vec())).into_iter().collect();
    assert_eq!(sim.aside, copies);
}

#[test]
fn every_changed_byte_is_damage_of_its_record_or_a_tail() {
    let (ledger, heads) = small();
    for at in 0..ledger.len() {
        for flip in 1..=255 {
            let mut changed = ledger.clone();
            changed[at] ^= flip;
            judge(&ledger, &changed, RECORDS.len(), &heads[RECORDS.len()]);
        }
        for (synced, head) in heads.iter().enumerate() {
            let mut changed = ledger.clone();
            changed[at] ^= 0x10;
            judge(&ledger, &changed, synced, head);
        }
    }
}

#[test]
fn all_of_a_record_but_its_length_is_told_to_have_changed() {
    let (ledger, heads) = small();
    let third = places(&ledger)[2].clone();
    for at in third.start + 4..third.end {
        let mut changed = ledger.clone();
        changed[at] ^= 1;
        let found = damage(&changed, &heads[RECORDS.len()]);
        assert_eq!(found, Damage { at: third.start as u64, sequence: 3, fault: Fault::Changed });
    }
}

#[test]
fn every_cut_is_damage_of_the_record_it_cuts_or_a_tail() {
    let (ledger, heads) = small();
    for (synced, head) in heads.iter().enumerate() {
        for length in 8..=ledger.len() {
            judge(&ledger, &ledger[..length], synced, head);
        }
        for length in 0..8 {
            match synced {
                0 => assert!(open(&ledger[..length], head).0.unwrap().is_empty()),
                _ => assert_eq!(
                    damage(&ledger[..length], head),
                    Damage { at: 8, sequence: 1, fault: Fault::Cut }
                ),
            }
        }
    }
}

#[test]
fn every_zeroing_is_damage_of_the_first_record_it_changes_or_a_tail() {
    let (ledger, heads) = small();
    for (synced, head) in heads.iter().enumerate() {
        for from in (0..ledger.len()).step_by(3) {
            for to in (from + 1..=ledger.len()).step_by(5) {
                let mut changed = ledger.clone();
                changed[from..to].fill(0);
                judge(&ledger, &changed, synced, head);
            }
        }
    }
}

#[test]
fn records_removed_repeated_or_moved_do_not_chain() {
    let (ledger, heads) = small();
    let (places, head) = (places(&ledger), &heads[RECORDS.len()]);
    let with = |order: &[usize]| -> Vec<u8> {
        let records = order.iter().flat_map(|n| ledger[places[*n].clone()].to_vec());
        ledger[..8].iter().copied().chain(records).collect()
    };
    let misplaced = |order: &[usize], sequence: usize, found: usize| {
        let (at, fault) =
            (places[sequence - 1].start as u64, Fault::Misplaced { found: found as u64 });
        assert_eq!(damage(&with(order), head), Damage { at, sequence: sequence as u64, fault });
    };
    misplaced(&[1, 2, 3, 4], 1, 2);
    misplaced(&[0, 1, 3, 4], 3, 4);
    misplaced(&[0, 2, 1, 3, 4], 2, 3);
    misplaced(&[0, 1, 2, 2, 3, 4], 4, 3);
    let at = places[4].start as u64;
    assert_eq!(damage(&with(&[0, 1, 2, 3]), head), Damage { at, sequence: 5, fault: Fault::Cut });
}

#[test]
fn another_ledgers_record_or_head_is_found_out() {
    let (ledger, heads) = small();
    let mut sim = Sim::empty();
    sim.open().unwrap();
    Log::open(&mut sim, |_, _| Ok(()))
        .unwrap()
        .append(&[&b"ONE"[..], b"", b"record three"])
        .unwrap();
    let (ours, theirs) = (places(&ledger), places(sim.ledger()));
    let grafted = [&ledger[..ours[1].start], &sim.ledger()[theirs[1].start..]].concat();
    let at = ours[1].start as u64;
    assert_eq!(damage(&grafted, &heads[3]), Damage { at, sequence: 2, fault: Fault::Unchained });
    let at = theirs[2].start as u64;
    assert_eq!(
        damage(sim.ledger(), &heads[3]),
        Damage { at, sequence: 3, fault: Fault::OtherHead }
    );
}

#[test]
fn every_changed_byte_of_the_head_costs_nothing() {
    let (ledger, heads) = small();
    for head in &heads[1..] {
        for at in 0..head.len() {
            let mut changed = head.clone();
            changed[at] ^= 0x40;
            let (records, sim) = open(&ledger, &changed);
            assert_eq!(records.unwrap(), RECORDS, "byte {at} of the head");
            assert!(sim.aside.is_empty() && sim.ledger() == ledger);
        }
    }
}

#[test]
fn a_head_that_is_missing_or_cut_short_is_told_from_a_new_ledger() {
    let (ledger, heads) = small();
    let newest = &heads[RECORDS.len()];
    for length in 0..80 {
        assert_eq!(damage(&ledger, &newest[..length]).fault, Fault::HeadBroken);
    }
    let zeros = vec![0; newest.len()];
    assert_eq!(damage(&ledger, &zeros).fault, Fault::HeadBroken);
    assert_eq!(damage(&ledger[..8], &zeros).fault, Fault::HeadBroken);
    let missing = Sim::holding([Some(ledger.clone()), None]).open();
    assert!(
        matches!(&missing, Err(ServiceError::Damaged { damage, .. })
            if *damage == Damage { at: ledger.len() as u64, sequence: 6, fault: Fault::HeadMissing }),
        "{missing:?}"
    );
    let lost = Sim::holding([None, Some(newest.clone())]).open();
    assert!(
        matches!(lost, Err(ServiceError::Damaged { damage, .. }) if damage.fault == Fault::Cut)
    );
    assert!(Sim::holding([Some(ledger[..8].to_vec()), None]).open().unwrap().is_empty());
}

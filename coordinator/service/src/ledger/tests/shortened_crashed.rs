//! A crash, or a full disk, at every single step of beginning a ledger anew with a snapshot: the old
//! ledger is there or the new one, and both go on.

use super::places;
use super::sim::Sim;
use crate::ServiceError;
use crate::ledger::Fault;
use crate::ledger::frame::HEADER;
use crate::ledger::log::Log;
use crate::ledger::repair::Wreck;
use crate::ledger::start::START;

const SNAPSHOT: &[u8] = b"all that came before";

/// A ledger that was opened anew for each of these.
fn written(records: &[&[u8]]) -> Sim {
    let mut sim = Sim::empty();
    sim.open().unwrap();
    append(&mut sim, records).unwrap();
    sim
}

fn append(sim: &mut Sim, records: &[&[u8]]) -> Result<(), ServiceError> {
    for record in records {
        Log::open(&mut *sim, |_, _| Ok(()))?.append(&[record])?;
    }
    Ok(())
}

fn shorten(sim: &mut Sim) -> Result<(), ServiceError> {
    Log::open(sim, |_, _| Ok(()))?.shorten(SNAPSHOT)
}

/// One that was shortened after two records and has three since, the snapshot among them.
fn shortened() -> Sim {
    let mut sim = written(&[b"one", b"two"]);
    shorten(&mut sim).unwrap();
    append(&mut sim, &[b"three", b"4"]).unwrap();
    sim
}

fn numbered(sim: &mut Sim) -> Result<Vec<(u64, Vec<u8>)>, ServiceError> {
    let mut records = Vec::new();
    Log::open(sim, |sequence, payload| {
        records.push((sequence, payload.to_vec()));
        Ok(())
    })?;
    Ok(records)
}

#[test]
fn numbers_go_on_and_what_it_stands_for_is_kept() {
    let before = written(&[b"one", b"two"]);
    let mut sim = shortened();
    let wanted = [(3, SNAPSHOT), (4, b"three"), (5, b"4")].map(|(n, record)| (n, record.to_vec()));
    assert_eq!(numbered(&mut sim).unwrap(), wanted);
    assert_eq!(sim.before, Some(before.files));
    assert_eq!(sim.next, None);
    shorten(&mut sim).unwrap();
    assert_eq!(numbered(&mut sim).unwrap(), [(6, SNAPSHOT.to_vec())]);
    let kept = sim.before.clone().unwrap();
    assert_eq!(numbered(&mut Sim::holding(kept)).unwrap(), wanted);
}

/// The old records, or the snapshot; then it goes on, and may be shortened again.
fn recovers(mut found: Sim, old: &[(u64, Vec<u8>)], done: bool) {
    let last = old.last().map_or(0, |(sequence, _)| *sequence);
    let records = numbered(&mut found).unwrap_or_else(|error| panic!("{error}: {found:?}"));
    let new = [(last + 1, SNAPSHOT.to_vec())];
    assert!(records == new || (records == old && !done), "{records:?}: {found:?}");
    assert_eq!((&found.next, &found.aside), (&None, &Vec::new()), "something is left of it");
    append(&mut found, &[b"goes on"]).unwrap();
    let end = records.last().map_or(0, |(sequence, _)| *sequence);
    let wanted = [&records[..], &[(end + 1, b"goes on".to_vec())]].concat();
    assert_eq!(numbered(&mut found).unwrap(), wanted);
    shorten(&mut found).unwrap();
    assert_eq!(numbered(&mut found).unwrap(), [(end + 2, SNAPSHOT.to_vec())]);
}

#[test]
fn a_crash_at_any_step_leaves_the_old_ledger_or_the_new_one() {
    let mut crashes = 0;
    for mut before in [written(&[b"one"]), written(&[b"one", b"", b"three"]), shortened()] {
        let old = numbered(&mut before).unwrap();
        let mut steps = 0;
        loop {
            let mut sim = before.clone().dying_after(steps);
            let outcome = shorten(&mut sim);
            for found in sim.after_death(1) {
                recovers(found, &old, outcome.is_ok());
                crashes += 1;
            }
            if outcome.is_ok() {
                break;
            }
            steps += 1;
        }
        assert!(steps >= 11, "{steps} steps");
    }
    assert!(crashes > 300, "{crashes} crashes");
}

/// Where a step fails without a crash before the new ledger has its place, the old one takes records
/// as before; a later one leaves open which is there, and it takes none until it is opened again.
#[test]
fn a_disk_that_fails_at_any_step_leaves_a_log_that_goes_on_or_says_that_it_cannot() {
    let mut before = written(&[b"one", b"two"]);
    let old = numbered(&mut before).unwrap();
    let (mut went_on, mut stopped) = (0, 0);
    // Opening takes two.
    for steps in 2.. {
        let mut sim = before.clone().failing_after(steps);
        let mut log = Log::open(&mut sim, |_, _| Ok(())).unwrap();
        if log.shorten(SNAPSHOT).is_ok() {
            break;
        }
        let is_sound = log.is_sound();
        assert_eq!(log.append(&[b"more"]).is_ok(), is_sound);
        let records = numbered(&mut sim).unwrap();
        match is_sound {
            true => assert_eq!(records, [&old[..], &[(3, b"more".to_vec())]].concat()),
            false => assert!(records == old || records == [(3, SNAPSHOT.to_vec())]),
        }
        assert_eq!(sim.next, None, "something is left of it");
        *(if is_sound { &mut went_on } else { &mut stopped }) += 1;
    }
    assert!(went_on >= 4 && stopped >= 3, "{went_on} went on, {stopped} stopped");
}

#[test]
fn every_changed_byte_of_a_shortened_ledger_is_damage() {
    let whole = shortened();
    let places = places(whole.ledger());
    for at in 0..whole.ledger().len() {
        let mut sim = whole.clone();
        sim.files[0].as_mut().unwrap()[at] ^= 0x11;
        let Err(ServiceError::Damaged { damage, .. }) = sim.open() else {
            panic!("byte {at} is not missed")
        };
        match places.iter().position(|place| place.contains(&at)) {
            Some(0) => assert_eq!(
                (damage.at, damage.sequence, damage.fault),
                (START as u64, 3, Fault::Snapshot)
            ),
            Some(n) => {
                assert_eq!((damage.at, damage.sequence), (places[n].start as u64, 3 + n as u64))
            }
            None => assert_eq!((damage.at, damage.fault), (0, Fault::Magic), "at byte {at}"),
        }
    }
    for length in 0..whole.ledger().len() {
        let mut sim = whole.clone();
        sim.files[0].as_mut().unwrap().truncate(length);
        assert!(matches!(sim.open(), Err(ServiceError::Damaged { .. })), "cut at {length}");
    }
}

/// A snapshot that the head does not name yet was synced all the same.
#[test]
fn the_snapshot_must_be_whole_whatever_the_head_says() {
    let before = written(&[b"one", b"two"]);
    let mut sim = before.clone();
    shorten(&mut sim).unwrap();
    sim.files[1] = before.files[1].clone();
    assert_eq!(numbered(&mut sim.clone()).unwrap(), [(3, SNAPSHOT.to_vec())]);
    for length in START..sim.ledger().len() {
        let mut cut = sim.clone();
        cut.files[0].as_mut().unwrap().truncate(length);
        let Err(ServiceError::Damaged { damage, .. }) = cut.open() else {
            panic!("cut at {length}")
        };
        assert_eq!(damage.fault, Fault::Snapshot);
    }
    sim.files[1] = None;
    assert!(matches!(sim.open(), Err(ServiceError::Damaged { .. })), "it has no head");
}

#[test]
fn a_repair_keeps_what_follows_from_the_snapshot_and_nothing_without_it() {
    let whole = shortened();
    let places = places(whole.ledger());
    let damaged = |at: usize, bits: u8| {
        let mut sim = whole.clone();
        sim.files[0].as_mut().unwrap()[at] ^= bits;
        sim
    };
    let wanted = numbered(&mut whole.clone()).unwrap();
    // The first bytes follow from the snapshot's frame. The last of these is another format's name.
    let starts = [(0, 1), (9, 1), (30, 1), (70, 1), (7, b'3' ^ b'2')]
        .map(|(at, bits)| (damaged(at, bits), 3));
    let last = places[2].start + HEADER;
    let later = [(damaged(places[1].start + HEADER, 1), 1), (damaged(last, 1), 2)];
    for (mut sim, kept) in starts.into_iter().chain(later) {
        assert!(sim.open().is_err());
        let mut disk = &mut sim;
        let wreck = Wreck::look(&mut disk).unwrap().unwrap();
        wreck.mend(&mut disk).unwrap();
        assert_eq!(numbered(&mut sim).unwrap(), wanted[..kept]);
        assert!(whole.ledger().starts_with(sim.ledger()));
    }
    for mut sim in [damaged(places[0].start + HEADER, 1), damaged(places[0].start, 1)] {
        let error = Wreck::look(&mut &mut sim).unwrap_err();
        assert!(error.to_string().contains("move them to `ledger`"), "{error}");
    }
    let mut both = damaged(places[0].start + HEADER, 1);
    both.files[0].as_mut().unwrap()[20] ^= 1;
    let error = Wreck::look(&mut &mut both).unwrap_err();
    assert!(error.to_string().contains("move them to `ledger`"), "{error}");
}

//! A crash after every single step of a repair: the ledger is the old one, refused as before, or
//! the new one; and whatever was changed lies aside as it was found.

use super::places;
use super::sim::Sim;
use crate::ServiceError;
use crate::ledger::frame::HEADER;
use crate::ledger::log::Log;
use crate::ledger::repair::Wreck;

const RECORDS: [&[u8]; 4] = [b"one", b"two", b"", b"number four"];

impl Sim {
    /// Repairs it; whether anything was damaged.
    fn repair(&mut self) -> Result<bool, ServiceError> {
        let mut disk = &mut *self;
        let Some(wreck) = Wreck::look(&mut disk)? else { return Ok(false) };
        wreck.mend(&mut disk).map(|_| true)
    }
}

/// A ledger that was opened anew for each of these.
fn written(records: &[&[u8]]) -> Sim {
    let mut sim = Sim::empty();
    sim.open().unwrap();
    for record in records {
        Log::open(&mut sim, |_, _| Ok(())).unwrap().append(&[record]).unwrap();
    }
    sim
}

/// Every kind of damage, and how many records it leaves.
fn wrecks() -> Vec<(&'static str, Sim, usize)> {
    let (whole, foreign) = (written(&RECORDS), written(&[b"1", b"2", b"3", b"4"]));
    let (ledger, head) = (whole.ledger().to_vec(), whole.head().to_vec());
    let places = places(&ledger);
    let changed = |at: usize| {
        let mut bytes = ledger.clone();
        bytes[at] ^= 1;
        bytes
    };
    let removed = [&ledger[..places[1].start], &ledger[places[2].start..]].concat();
    let with = |ledger: Vec<u8>, head: Option<&[u8]>| {
        Sim::holding([Some(ledger), head.map(<[u8]>::to_vec)])
    };
    let mut broken = head.clone();
    (broken[3], broken[4096]) = (9, 77);
    vec![
        ("the first changed", with(changed(places[0].end - 1), Some(&head)), 0),
        ("the third changed", with(changed(places[2].start + HEADER - 1), Some(&head)), 2),
        ("the last changed", with(changed(ledger.len() - 1), Some(&head)), 3),
        ("the second removed", with(removed, Some(&head)), 1),
        ("cut", with(ledger[..places[3].start + 5].to_vec(), Some(&head)), 3),
        ("cut off whole", with(Vec::new(), Some(&head)), 0),
        ("the magic changed", with(changed(2), Some(&head)), 4),
        ("magic and head", with(changed(2), None), 4),
        ("no head", with(ledger.clone(), None), 4),
        ("no head and a torn tail", with([&ledger[..], b"torn"].concat(), None), 4),
        ("a broken head", with(ledger.clone(), Some(&broken)), 4),
        ("another's head", with(ledger.clone(), Some(foreign.head())), 4),
    ]
}

/// It was not touched, or all of it lies aside; it opens with what is to be kept, if need be after
/// another repair.
fn recovers(what: &str, before: &Sim, mut found: Sim, kept: &[&[u8]]) {
    assert!(
        found.files == before.files || found.damaged.iter().eq([&before.files]),
        "{what}: changed without a copy: {found:?}"
    );
    let records = match found.clone().open() {
        Ok(records) => records,
        Err(ServiceError::Damaged { .. } | ServiceError::NotALedger(_)) => {
            assert!(found.repair().unwrap(), "{what}: {found:?}");
            found.open().unwrap()
        }
        Err(other) => panic!("{what}: {other}"),
    };
    assert_eq!(records, kept, "{what}: {found:?}");
}

#[test]
fn a_crash_at_any_step_of_a_repair_leaves_the_old_ledger_or_the_new_one() {
    let mut crashes = 0;
    for (what, before, kept) in wrecks() {
        assert!(before.clone().open().is_err(), "{what} is not damage");
        let mut steps = 0;
        loop {
            let mut sim = before.clone().dying_after(steps);
            let outcome = sim.repair();
            for found in sim.after_death(1) {
                recovers(what, &before, found, &RECORDS[..kept]);
                crashes += 1;
            }
            if outcome.is_ok() {
                break;
            }
            steps += 1;
        }
        assert!(steps >= 8, "{what}: {steps} steps");
    }
    assert!(crashes > 5000, "{crashes} crashes");
}

#[test]
fn a_repaired_ledger_is_as_if_no_more_had_been_written_and_goes_on() {
    for (what, before, kept) in wrecks() {
        let mut sim = before.clone();
        assert!(sim.repair().unwrap(), "{what}");
        assert_eq!(sim.ledger(), written(&RECORDS[..kept]).ledger(), "{what}");
        assert!(sim.damaged.iter().eq([&before.files]), "{what}");
        assert!(!sim.clone().repair().unwrap(), "{what}: repaired twice");
        Log::open(&mut sim, |_, _| Ok(())).unwrap().append(&[b"goes on"]).unwrap();
        let wanted = [&RECORDS[..kept], &[b"goes on"]].concat();
        assert_eq!(sim.open().unwrap(), wanted, "{what}");
        assert!(sim.aside.is_empty(), "{what}");
    }
}

#[test]
fn what_is_not_damaged_is_not_repaired() {
    let whole = written(&RECORDS);
    let torn = [whole.ledger(), b"torn"].concat();
    let unborn = [Sim::empty(), Sim::holding([Some(b"USP".to_vec()), None])];
    let torn = Sim::holding([Some(torn), Some(whole.head().to_vec())]);
    for before in unborn.into_iter().chain([whole, torn]) {
        let mut sim = before.clone();
        assert!(!sim.repair().unwrap());
        assert!(sim.files == before.files && sim.damaged.is_empty());
    }
}

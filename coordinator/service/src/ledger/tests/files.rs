//! The ledger in a real folder: what is held, refused, set aside, and how it is said.

use crate::ledger::{Damage, Fault, Ledger, head_path, replay_file, survey};
use crate::{ServiceError, ledger::Extent};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uspx_colony::{Ending, Record};

fn record(n: u64) -> Record {
    Record::Ended { ending: Ending::Failed(format!("record {n}")) }
}

fn all(path: &Path) -> Result<Vec<Record>, ServiceError> {
    let mut records = Vec::new();
    Ledger::open(path, |r| records.push(r)).map(|_| records)
}

/// A ledger of `records`, each appended by an opening of its own.
fn ledger(records: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    for n in 1..=records {
        Ledger::open(&path, |_| {}).unwrap().append(&[record(n)]).unwrap();
    }
    (dir, path)
}

#[test]
fn what_was_appended_is_read_again() {
    let (_dir, path) = ledger(3);
    assert_eq!(all(&path).unwrap(), [1, 2, 3].map(record));
    assert_eq!(Ledger::open(&path, |_| {}).unwrap().sequence(), 3);
}

#[test]
fn one_process_holds_it_at_a_time_and_all_may_look() {
    let (_dir, path) = ledger(2);
    let held = Ledger::open(&path, |_| {}).unwrap();
    assert!(matches!(all(&path), Err(ServiceError::Locked(_))));
    assert_eq!(survey(&path, |_| {}).unwrap().records, 2);
    drop(held);
    assert!(all(&path).is_ok());
}

#[test]
fn a_torn_tail_is_set_aside_and_no_copy_overwrites_another() {
    let (dir, path) = ledger(2);
    let whole = std::fs::read(&path).unwrap();
    for (tail, name) in
        [("torn", "ledger.tail-3"), ("again", "ledger.tail-3-2"), ("", "ledger.tail-3-3")]
    {
        std::fs::write(&path, [&whole, tail.as_bytes()].concat()).unwrap();
        let seen = survey(&path, |_| {}).unwrap();
        assert_eq!(seen.beyond, Extent { records: 0, bytes: tail.len() as u64 });
        assert_eq!(all(&path).unwrap(), [1, 2].map(record));
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let copy = std::fs::read(dir.path().join(name)).ok();
        assert_eq!(copy, (!tail.is_empty()).then(|| tail.into()));
    }
    assert_eq!(std::fs::read(dir.path().join("ledger.tail-3")).unwrap(), b"torn");
}

#[test]
fn whole_records_beyond_the_head_are_kept_and_then_named_by_it() {
    let (_dir, path) = ledger(2);
    let head = std::fs::read(head_path(&path)).unwrap();
    Ledger::open(&path, |_| {}).unwrap().append(&[record(3), record(4)]).unwrap();
    std::fs::write(head_path(&path), head).unwrap();
    let seen = survey(&path, |_| {}).unwrap();
    assert_eq!((seen.records, seen.head.records, seen.beyond.records), (4, 2, 2));
    assert_eq!(all(&path).unwrap(), [1, 2, 3, 4].map(record));
    let seen = survey(&path, |_| {}).unwrap();
    assert_eq!((seen.head.records, seen.beyond), (4, Extent { records: 0, bytes: 0 }));
}

#[test]
fn damage_is_refused_with_its_place_and_nothing_is_touched() {
    let (_dir, path) = ledger(3);
    let mut bytes = std::fs::read(&path).unwrap();
    let second = super::places(&bytes)[1].start;
    bytes[second + 80] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let wanted = Damage { at: second as u64, sequence: 2, fault: Fault::Changed };
    for refused in
        [all(&path).map(drop), survey(&path, |_| {}).map(drop), replay_file(&path).map(drop)]
    {
        let error = refused.unwrap_err();
        let words = error.to_string();
        assert!(matches!(error, ServiceError::Damaged { damage, .. } if damage == wanted));
        let place = format!("damaged at byte {second}, record 2: the record's bytes have changed");
        assert!(
            words.contains(&place) && words.contains("Restore the ledger together with"),
            "{words}"
        );
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_ledger_moved_without_its_head_says_what_to_copy() {
    let (dir, path) = ledger(3);
    let moved = dir.path().join("moved");
    std::fs::copy(&path, &moved).unwrap();
    let words = all(&moved).unwrap_err().to_string();
    assert!(
        words.contains("head file is missing") && words.contains("3 records are whole"),
        "{words}"
    );
    assert!(words.contains("copy both"), "{words}");
    std::fs::copy(head_path(&path), head_path(&moved)).unwrap();
    assert_eq!(all(&moved).unwrap().len(), 3);
}

#[test]
fn other_files_and_other_versions_are_refused() {
    let (dir, path) = ledger(0);
    std::fs::write(&path, b"something else").unwrap();
    assert!(matches!(all(&path), Err(ServiceError::NotALedger(_))));
    std::fs::write(&path, b"USPXLED1\x05\0\0\0").unwrap();
    let words = all(&path).unwrap_err().to_string();
    assert!(words.contains("format 1") && words.contains("another state folder"), "{words}");
    assert_eq!(std::fs::read(&path).unwrap(), b"USPXLED1\x05\0\0\0");
    let nowhere = survey(&dir.path().join("nowhere"), |_| {});
    assert!(matches!(nowhere, Err(ServiceError::File { .. })));
}

#[test]
fn a_record_of_a_newer_version_is_named_and_the_tail_left_alone() {
    let (_dir, path) = ledger(1);
    let mut log =
        crate::ledger::Log::open(crate::ledger::Folder::hold(&path).unwrap(), |_, _| Ok(()))
            .unwrap();
    log.append(&[rmp_serde::to_vec_named("from_the_future").unwrap()]).unwrap();
    drop(log);
    let torn = [&std::fs::read(&path).unwrap()[..], b"torn"].concat();
    std::fs::write(&path, &torn).unwrap();
    let words = all(&path).unwrap_err().to_string();
    assert!(words.contains("record 2 is whole") && words.contains("update uspx"), "{words}");
    assert_eq!(std::fs::read(&path).unwrap(), torn);
}

//! Ledgers of real records in real folders, begun anew with a snapshot: everything that reads a
//! ledger reads them, and comes to the same.

use super::frozen;
use crate::ServiceError;
use crate::ledger::moving::{export, import};
use crate::ledger::{
    Compaction, Ledger, before_path, head_path, hold, repair, replay_file, survey,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use uspx_colony::{Record, Snapshot, State};

/// Whenever there is anything.
const ALWAYS: Compaction = Compaction { least: 1, times: 0 };

fn snapshot(known: &State, records: u64) -> Snapshot {
    Snapshot::of(records, known, BTreeSet::new()).unwrap()
}

fn replayed(path: &Path) -> (Ledger, State) {
    let mut known = State::default();
    let ledger = Ledger::open(path, |record| known.fold(&record)).unwrap();
    (ledger, known)
}

/// Appends records; after each of the places named the ledger is begun anew, by a coordinator that
/// was started since.
fn written(records: &[Record], places: &[usize]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let mut begin = 0;
    for place in places {
        let (mut ledger, mut known) = replayed(&path);
        ledger.append(&records[begin..*place]).unwrap();
        records[begin..*place].iter().for_each(|record| known.fold(record));
        assert!(ledger.compact(snapshot(&known, ledger.sequence()), &ALWAYS).unwrap());
        begin = *place;
    }
    let (mut ledger, _) = replayed(&path);
    ledger.append(&records[begin..]).unwrap();
    (dir, path)
}

fn bytes(state: &State) -> Vec<u8> {
    state.snapshot().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn invariant_1_a_shortened_ledger_replays_to_the_same_bytes(
        places in proptest::collection::btree_set(1usize..frozen::records().len(), 1..4),
    ) {
        let records = frozen::records();
        let places: Vec<usize> = places.into_iter().collect();
        let (_whole, whole) = frozen::copied();
        let (_dir, path) = written(&records, &places);
        let (_, known) = replayed(&path);
        let (_, wanted) = replayed(&whole);
        prop_assert!(bytes(&known) == bytes(&wanted), "shortened after {:?}", places);
        let found = survey(&path, |_| {}).unwrap();
        // Each snapshot is a record, too.
        prop_assert_eq!(found.records as usize, records.len() + places.len());
        prop_assert_eq!(found.folded as usize, places.last().unwrap() + places.len() - 1);
    }
}

#[test]
fn it_gets_shorter_and_what_it_stands_for_lies_beside_it() {
    let (_dir, path) = frozen::copied();
    let before = std::fs::read(&path).unwrap();
    let wanted = replay_file(&path).unwrap();
    let (mut ledger, known) = replayed(&path);
    assert!(ledger.compact(snapshot(&known, ledger.sequence()), &ALWAYS).unwrap());
    assert!(matches!(hold(&path), Err(ServiceError::Locked(_))), "it is held under its old name");
    ledger.append(&[Record::StudentAsked]).unwrap();
    drop(ledger);
    assert!(std::fs::read(before_path(&path)).unwrap() == before);
    assert!(!path.with_file_name("ledger.next").exists());
    // A person goes back one step.
    for (from, to) in
        [(before_path(&path), path.clone()), (head_path(&before_path(&path)), head_path(&path))]
    {
        std::fs::rename(from, to).unwrap();
    }
    let (_, back) = replayed(&path);
    assert!(bytes(&back) == bytes(&wanted));
}

#[test]
fn it_is_not_begun_anew_for_a_snapshot_that_saves_little() {
    let (_dir, path) = frozen::copied();
    let before = std::fs::read(&path).unwrap();
    let (mut ledger, known) = replayed(&path);
    let when = Compaction { least: 1, times: 1_000 };
    assert!(ledger.is_long(&when), "how long a snapshot is is not known yet");
    assert!(!ledger.compact(snapshot(&known, ledger.sequence()), &when).unwrap());
    assert!(!ledger.is_long(&when) && !ledger.is_long(&Compaction::default()));
    assert!(std::fs::read(&path).unwrap() == before && !before_path(&path).exists());
}

/// A directory stands where the copy is to lie: as on a full disk, nothing comes of it.
#[test]
fn a_ledger_that_cannot_be_shortened_goes_on() {
    let (dir, path) = frozen::copied();
    std::fs::create_dir(before_path(&path)).unwrap();
    let (mut ledger, known) = replayed(&path);
    assert!(ledger.compact(snapshot(&known, ledger.sequence()), &ALWAYS).is_err());
    assert!(ledger.is_sound());
    assert!(!ledger.is_long(&Compaction { least: 1, times: 1 }), "it is tried again at once");
    ledger.append(&[Record::StudentAsked]).unwrap();
    drop(ledger);
    assert_eq!(survey(&path, |_| {}).unwrap().records as usize, frozen::records().len() + 1);
    assert!(!dir.path().join("ledger.next").exists());
}

/// Whoever opened the old file before it was replaced does not hold the ledger by it.
#[test]
fn a_replaced_file_is_not_taken_for_the_ledger() {
    let (_dir, path) = frozen::copied();
    let (mut ledger, known) = replayed(&path);
    ledger.compact(snapshot(&known, ledger.sequence()), &ALWAYS).unwrap();
    drop(ledger);
    let opened = std::cell::Cell::new(0);
    let old_first = || {
        opened.set(opened.get() + 1);
        let name = if opened.get() == 1 { before_path(&path) } else { path.clone() };
        std::fs::File::open(&name).map_err(ServiceError::file(name))
    };
    let held = crate::ledger::Folder::lock(&path, old_first).unwrap();
    assert_eq!(opened.get(), 2);
    assert!(matches!(hold(&path), Err(ServiceError::Locked(_))), "{held:?}");
}

#[test]
fn it_moves_and_is_repaired_as_any_other() {
    let records = frozen::records();
    let (dir, path) = written(&records, &[50]);
    let file = dir.path().join("colony.tar");
    let sent = export(dir.path(), &file).unwrap();
    let new = dir.path().join("new");
    assert_eq!(import(&file, &new).unwrap(), sent);
    let moved = replay_file(&new.join("ledger")).unwrap();
    assert!(bytes(&moved) == bytes(&replay_file(&path).unwrap()));
    assert!(!before_path(&new.join("ledger")).exists(), "what it stands for stays behind");

    let mut changed = std::fs::read(&path).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&path, changed).unwrap();
    let done = repair(&path, false).unwrap();
    assert_eq!(done.kept.records as usize, records.len());
    assert_eq!(done.loss.unwrap().records, Some(1));
    let (_, known) = replayed(&path);
    let mut wanted = State::default();
    records[..records.len() - 1].iter().for_each(|record| wanted.fold(record));
    assert!(bytes(&known) == bytes(&wanted));
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/shortened-1").join(name)
}

fn names_resampled(path: &Path) -> bool {
    std::fs::read(path).unwrap().windows(9).any(|word| word == b"resampled")
}

/// The frozen campaign, shortened once: every later version must read the snapshot as it was
/// written, or ledgers that have nothing else would be lost to it. It holds the evidence drawn anew, too,
/// as snapshots do no more.
#[test]
fn invariant_1_the_frozen_snapshot_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    std::fs::copy(fixture("ledger"), &path).unwrap();
    std::fs::copy(fixture("ledger.head"), head_path(&path)).unwrap();
    let state = replay_file(&path).unwrap();
    let (_whole, whole) = frozen::copied();
    assert!(bytes(&state) == bytes(&replay_file(&whole).unwrap()));
    assert!(survey(&path, |_| {}).unwrap().folded > 0);
    assert!(names_resampled(&path));
    let (_dir, today) = written(&frozen::records(), &[50]);
    assert!(!names_resampled(&today));
}

#[test]
#[ignore = "writes the fixture of a new version; never changes one that is there"]
fn write_the_missing_fixture() {
    if fixture("ledger").exists() {
        return;
    }
    let records = frozen::records();
    let (mut known, middle) = (State::default(), records.len() / 2);
    records[..middle].iter().for_each(|record| known.fold(record));
    std::fs::create_dir_all(fixture("")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let mut ledger = Ledger::open(&path, |_| {}).unwrap();
    ledger.append(&records[..middle]).unwrap();
    assert!(ledger.compact(snapshot(&known, ledger.sequence()), &ALWAYS).unwrap());
    ledger.append(&records[middle..]).unwrap();
    std::fs::copy(&path, fixture("ledger")).unwrap();
    std::fs::copy(head_path(&path), fixture("ledger.head")).unwrap();
}

/// A ledger whose first record is this snapshot.
fn of_another_version(payload: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let (dir, path) = frozen::copied();
    let folder = crate::ledger::Folder::hold(&path).unwrap();
    let mut log = crate::ledger::Log::open(folder, |_, _| Ok(())).unwrap();
    log.shorten(payload).unwrap();
    drop(log);
    (dir, path)
}

fn refused(payload: &[u8], written_by: &str) {
    let (_dir, path) = of_another_version(payload);
    let before = std::fs::read(&path).unwrap();
    let error = Ledger::open(&path, |_| {}).unwrap_err().to_string();
    for word in [written_by, "ledger.before", "ledger.before.head", "Nothing was changed"] {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
    assert_eq!(survey(&path, |_| {}).unwrap_err().to_string(), error);
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn a_snapshot_of_another_form_is_refused_by_the_version_that_wrote_it() {
    // Of a state that this version cannot read at all.
    #[derive(serde::Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Snapshot(Written),
    }
    #[derive(serde::Serialize)]
    struct Written {
        written_by: &'static str,
        state: [u8; 2],
    }
    let unreadable = Kind::Snapshot(Written { written_by: "9.8.7", state: [1, 2] });
    refused(&rmp_serde::to_vec_named(&unreadable).unwrap(), "uspx 9.8.7");
    // Of a state with a part that this version has no place for, and would drop.
    let (_dir, path) = frozen::copied();
    let (ledger, known) = replayed(&path);
    let other = uspx_domain::Digest::of(b"with more in it");
    let snapshot = Snapshot {
        digest: other,
        written_by: "9.8.8".into(),
        ..snapshot(&known, ledger.sequence())
    };
    let larger = Record::Snapshot(Box::new(snapshot));
    refused(&rmp_serde::to_vec_named(&larger).unwrap(), "uspx 9.8.8");
}

//! The frozen ledger: a small campaign's, written once. Every later version must read it and replay
//! it to the same mask, to the byte.

#[path = "../../../../colony/tests/colony/world/mod.rs"]
pub(crate) mod world;

use crate::ledger::{Ledger, head_path, replay_file};
use std::path::{Path, PathBuf};
use uspx_colony::{Record, State};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/campaign-1").join(name)
}

/// A copy in a folder of its own: opening locks the file, and the fixture is never written to.
pub(crate) fn copied() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    std::fs::copy(fixture("ledger"), &path).unwrap();
    std::fs::copy(fixture("ledger.head"), head_path(&path)).unwrap();
    (dir, path)
}

/// The frozen records, in order.
pub(crate) fn records() -> Vec<Record> {
    let (_dir, path) = copied();
    let mut records = Vec::new();
    Ledger::open(&path, |r| records.push(r)).unwrap();
    records
}

/// The frozen bytes.
pub(crate) fn bytes() -> Vec<u8> {
    std::fs::read(fixture("ledger")).unwrap()
}

#[test]
fn invariant_1_the_frozen_ledger_replays_to_the_same_mask_bytes() {
    let (_dir, path) = copied();
    let state = replay_file(&path).unwrap();
    let mask = serde_json::to_vec_pretty(&state.mask().unwrap().mask).unwrap();
    assert_eq!(mask, std::fs::read(fixture("mask.json")).unwrap());
    assert_eq!(state.deviations().len(), 0, "today's rules differ from the first: RULES");
}

/// What is appended today are the frozen bytes: frames and records are written as they were.
#[test]
fn invariant_1_records_are_written_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    Ledger::open(&path, |_| {}).unwrap().append(&records()).unwrap();
    assert!(
        std::fs::read(&path).unwrap() == bytes(),
        "the ledger is written otherwise: version it"
    );
}

#[test]
#[ignore = "writes the fixture of a new version; never changes one that is there"]
fn write_the_missing_fixture() {
    let path = fixture("ledger");
    if path.exists() {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let (service, _) = world::honest(world::service::small("frozen"));
    for records in service.ledger.chunks(3) {
        Ledger::open(&path, |_| {}).unwrap().append(records).unwrap();
    }
    let mut state = State::default();
    service.ledger.iter().for_each(|r| state.fold(r));
    let mask = serde_json::to_vec_pretty(&state.mask().unwrap().mask).unwrap();
    std::fs::write(fixture("mask.json"), mask).unwrap();
}

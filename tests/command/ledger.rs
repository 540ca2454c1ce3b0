//! `uspx ledger check`: what it says of a whole ledger, a torn one, a damaged one, and none.

use crate::support::{BAD_INPUT, NOT_FOUND, REFUSED, json, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::{Value, json as value};
use std::path::Path;
use tempfile::{TempDir, tempdir};
use uspx_colony::{Ending, Record};
use uspx_coordinator::Ledger;
use uspx_coordinator::ledger::head_path;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_whole_ledger_is_counted_while_a_coordinator_holds_it,
        what_lies_beyond_the_head_is_no_damage,
        damage_is_named_with_its_place_and_what_follows,
        a_lost_head_another_version_and_no_ledger_are_told_apart,
    ]
}

/// A state folder with a ledger of so many records.
fn state(records: u64) -> TempDir {
    let state = tempdir().unwrap();
    let mut ledger = Ledger::open(&state.path().join("ledger"), |_| {}).unwrap();
    for n in 1..=records {
        ledger.append(&[Record::Ended { ending: Ending::Failed(format!("record {n}")) }]).unwrap();
    }
    state
}

fn check(state: &Path) -> Command {
    let mut command = uspx();
    command.args(["ledger", "check", "--state"]).arg(state);
    command
}

/// Changes the ledger's bytes.
fn change(state: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = state.join("ledger");
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
}

fn a_whole_ledger_is_counted_while_a_coordinator_holds_it() {
    let state = state(3);
    let bytes = std::fs::metadata(state.path().join("ledger")).unwrap().len();
    let _held = Ledger::open(&state.path().join("ledger"), |_| {}).unwrap();
    let report = json(&mut check(state.path()));
    let extent = |records: u64, bytes: u64| value!({"records": records, "bytes": bytes});
    assert_eq!(
        (&report["whole"], &report["records"], &report["damage"]),
        (&value!(true), &value!(3), &Value::Null)
    );
    assert_eq!((&report["head"], &report["beyond"]), (&extent(3, bytes), &extent(0, 0)));
    let said = check(state.path()).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains(&format!("record 3, byte {bytes}")) && !said.contains("beyond the head"),
        "{said}"
    );
}

fn what_lies_beyond_the_head_is_no_damage() {
    let state = state(2);
    change(state.path(), |bytes| bytes.extend(b"torn"));
    let report = json(&mut check(state.path()));
    assert_eq!(report["beyond"], value!({"records": 0, "bytes": 4}));
    let said = check(state.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("beyond the head"), "{said:?}");
    assert!(
        std::fs::read(state.path().join("ledger")).unwrap().ends_with(b"torn"),
        "it was to look only"
    );
}

fn damage_is_named_with_its_place_and_what_follows() {
    let state = state(4);
    // The first record begins after the 8 bytes that every ledger begins with.
    change(state.path(), |bytes| bytes[8 + 4] ^= 2);
    let words = [
        "damaged at byte 8, record 1",
        "have changed",
        "Restore the ledger",
        "no coordinator starts",
    ];
    refuses(&mut check(state.path()), REFUSED, &words);
    let output = check(state.path()).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(REFUSED));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["whole"], &report["records"]), (&value!(false), &value!(0)));
    assert_eq!(report["damage"], value!({"at": 8, "sequence": 1, "fault": {"kind": "changed"}}));
}

fn a_lost_head_another_version_and_no_ledger_are_told_apart() {
    let state = state(2);
    std::fs::remove_file(head_path(&state.path().join("ledger"))).unwrap();
    refuses(
        &mut check(state.path()),
        REFUSED,
        &["head file is missing", "2 records are whole", "copy both"],
    );
    change(state.path(), |bytes| bytes[7] = b'1');
    refuses(&mut check(state.path()), REFUSED, &["format 1", "another state folder"]);
    change(state.path(), |bytes| bytes[0] = b'?');
    refuses(&mut check(state.path()), BAD_INPUT, &["not a ledger"]);
    refuses(&mut check(&state.path().join("nowhere")), NOT_FOUND, &["does not exist", "--state"]);
}

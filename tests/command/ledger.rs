//! `uspx ledger` and `uspx store collect`: what they say of a whole ledger, a torn one, a damaged
//! one, and none; what they change and what they leave alone.

use crate::support::{BAD_INPUT, NOT_FOUND, REFUSED, USAGE, json, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::{Value, json as value};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::{TempDir, tempdir};
use uspx_colony::{Ending, Record, Snapshot, State};
use uspx_coordinator::Ledger;
use uspx_coordinator::ledger::{Compaction, head_path};
use uspx_domain::{Answer, BlobRef, Outcome, StoredFile, TaskId};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_whole_ledger_is_counted_while_a_coordinator_holds_it,
        a_shortened_ledger_says_what_its_snapshot_stands_for,
        what_lies_beyond_the_head_is_no_damage,
        damage_is_named_with_its_place_and_what_follows,
        a_lost_head_another_version_and_no_ledger_are_told_apart,
        a_repair_tells_first_then_keeps_what_is_whole_and_sets_all_aside,
        a_repair_leaves_a_whole_a_held_and_a_missing_ledger_alone,
        a_ledger_moves_to_another_folder_as_one_file,
        a_damaged_export_and_a_folder_in_use_are_refused,
        old_blobs_that_nothing_names_are_collected,
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
    ledger("check", state)
}

fn ledger(what: &str, state: &Path) -> Command {
    let mut command = uspx();
    command.args(["ledger", what, "--state"]).arg(state);
    command
}

/// What a command that succeeds prints.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
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

fn a_shortened_ledger_says_what_its_snapshot_stands_for() {
    let state = state(3);
    assert_eq!(json(&mut check(state.path()))["folded"], 0);
    let path = state.path().join("ledger");
    let mut known = State::default();
    let mut ledger = Ledger::open(&path, |record| known.fold(&record)).unwrap();
    let snapshot = Snapshot::of(3, &known, BTreeSet::new()).unwrap();
    assert!(ledger.compact(snapshot, &Compaction { least: 1, times: 0 }).unwrap());
    drop(ledger);
    let report = json(&mut check(state.path()));
    assert_eq!((&report["records"], &report["folded"]), (&value!(4), &value!(3)));
    let text = said(&mut check(state.path()));
    assert!(text.contains("first 3 records") && text.contains("ledger.before"), "{text}");
    // Damage of the snapshot has a remedy of its own, and a repair keeps out of it.
    change(state.path(), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let words = ["record 4", "ledger.before.head", "is done again"];
    refuses(&mut check(state.path()), REFUSED, &words);
    refuses(&mut self::ledger("repair", state.path()), REFUSED, &words);
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
        "uspx ledger repair --state",
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

fn a_repair_tells_first_then_keeps_what_is_whole_and_sets_all_aside() {
    let state = state(4);
    // The last byte is the last record's.
    change(state.path(), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let damaged = std::fs::read(state.path().join("ledger")).unwrap();
    let told = json(ledger("repair", state.path()).arg("--dry-run"));
    assert_eq!((&told["repaired"], &told["loss"]["aside"]), (&value!(false), &Value::Null));
    assert!(std::fs::read(state.path().join("ledger")).unwrap() == damaged);
    let text = said(ledger("repair", state.path()).arg("--dry-run"));
    assert!(text.contains("3 records") && text.contains("only tells"), "{text}");
    let done = json(&mut ledger("repair", state.path()));
    assert_eq!((&done["repaired"], &done["kept"]), (&value!(true), &told["kept"]));
    assert_eq!(done["kept"]["records"], 3);
    let loss = &done["loss"];
    assert_eq!((&loss["records"], &loss["readable"]), (&value!(1), &value!(0)));
    assert_eq!((&loss["answers"], &loss["unanswered"]), (&value!(0), &value!({})));
    let copy = state.path().join("ledger.damaged-1");
    assert_eq!(loss["aside"], value!({"ledger": copy, "bytes": damaged.len()}));
    assert!(std::fs::read(&copy).unwrap() == damaged && head_path(&copy).exists());
    assert_eq!(json(&mut check(state.path()))["records"], 3);
}

fn a_repair_leaves_a_whole_a_held_and_a_missing_ledger_alone() {
    let state = state(2);
    let before = std::fs::read(state.path().join("ledger")).unwrap();
    let text = said(&mut ledger("repair", state.path()));
    assert!(text.contains("not damaged") && text.contains("nothing was changed"), "{text}");
    assert_eq!(json(&mut ledger("repair", state.path()))["loss"], Value::Null);
    let held = Ledger::open(&state.path().join("ledger"), |_| {}).unwrap();
    refuses(&mut ledger("repair", state.path()), REFUSED, &["in use", "stop that one"]);
    drop(held);
    assert!(std::fs::read(state.path().join("ledger")).unwrap() == before);
    let nowhere = state.path().join("nowhere");
    refuses(&mut ledger("repair", &nowhere), NOT_FOUND, &["does not exist", "--state"]);
}

fn a_ledger_moves_to_another_folder_as_one_file() {
    let (old, new) = (state(3), tempdir().unwrap());
    let (file, target) = (new.path().join("colony.tar"), new.path().join("state"));
    let sent = json(ledger("export", old.path()).arg(&file));
    assert!(sent["remark"].as_str().unwrap().contains("do not start"), "{sent}");
    let received = json(ledger("import", &target).arg(&file));
    for same in ["records", "files", "state"] {
        assert_eq!(sent[same], received[same], "{same}");
    }
    let looked = json(&mut check(&target));
    assert_eq!((&looked["whole"], &looked["records"]), (&value!(true), &value!(3)));
    let text = said(ledger("export", old.path()).arg(new.path().join("again.tar")));
    assert!(text.contains("do not start a coordinator"), "{text}");
}

fn a_damaged_export_and_a_folder_in_use_are_refused() {
    let (old, new) = (state(3), tempdir().unwrap());
    let (file, target) = (new.path().join("colony.tar"), new.path().join("state"));
    said(ledger("export", old.path()).arg(&file));
    refuses(ledger("import", old.path()).arg(&file), REFUSED, &["is there already"]);
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(8).position(|w| w == b"record 2").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let words = ["at byte", "record 2", "Nothing was written"];
    refuses(ledger("import", &target).arg(&file), BAD_INPUT, &words);
    assert!(!target.exists());
    let missing = new.path().join("missing.tar");
    refuses(ledger("import", &target).arg(missing), NOT_FOUND, &["does not exist"]);
}

fn old_blobs_that_nothing_names_are_collected() {
    let (dir, state) = (tempdir().unwrap(), state(1));
    let put = |content: &'static [u8]| {
        let blob = BlobRef::to(content);
        let hex = blob.digest.hex();
        let path = dir.path().join("blobs").join(&hex[..2]).join(&hex);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(9 * 24 * 3600)).unwrap();
        (blob, path)
    };
    let ((label, label_path), (_, orphan)) = (put(b"labels"), put(b"orphan"));
    let collect = |flags: &[&str]| {
        let mut command = uspx();
        command.args(["store", "collect", "--state"]).arg(state.path());
        command.arg("--store").arg(dir.path()).args(flags);
        command
    };
    // A ledger that speaks of nothing in the store is another store's.
    refuses(&mut collect(&[]), REFUSED, &["none of the 2 blobs", "--state"]);
    let files = vec![StoredFile { path: "a".into(), blob: label }];
    let answer = Answer {
        task: TaskId::derived(b"t"),
        worker: "w".parse().unwrap(),
        outcome: Outcome::Exported { files },
        millis: 1,
        skipped: vec![],
        seams: 0,
    };
    let mut ledger = Ledger::open(&state.path().join("ledger"), |_| {}).unwrap();
    ledger.append(&[Record::Accepted { answer: Box::new(answer) }]).unwrap();
    refuses(&mut collect(&[]), REFUSED, &["in use"]);
    drop(ledger);
    assert_eq!(json(&mut collect(&["--dry-run"]))["deleted"], value!({"blobs": 1, "bytes": 6}));
    assert_eq!(json(&mut collect(&["--older-than", "30d"]))["deleted"]["blobs"], 0);
    assert!(orphan.exists() && label_path.exists());
    refuses(&mut collect(&["--older-than", "5m"]), USAGE, &["at least 1h"]);
    let text = said(&mut collect(&[]));
    assert!(text.contains("deleted") && !text.contains("would be"), "{text}");
    assert!(!orphan.exists() && label_path.exists());
}

//! A ledger moved to another machine: all of it, verified, or nothing.

use super::{frozen, places};
use crate::ServiceError;
use crate::ledger::moving::{Moved, export, import};
use crate::ledger::{Ledger, head_path, replay_file, survey};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// The frozen ledger exported: its folder, which holds `colony.tar` too.
fn exported() -> (TempDir, PathBuf, Moved) {
    let (dir, _) = frozen::copied();
    std::fs::write(dir.path().join("owner.id"), b"an owner").unwrap();
    std::fs::write(dir.path().join("status.json"), b"{}").unwrap();
    let file = dir.path().join("colony.tar");
    let moved = export(dir.path(), &file).unwrap();
    (dir, file, moved)
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeMap::new() };
    let paths = entries.map(|e| e.unwrap().path());
    paths.map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), read(&p))).collect()
}

fn refused(file: &Path, words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let said = import(file, &state).unwrap_err().to_string();
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    assert!(!state.exists(), "something was written: {said}");
}

#[test]
fn a_moved_ledger_is_the_same_and_replays_to_the_same_state() {
    let (old, file, sent) = exported();
    let new = tempfile::tempdir().unwrap();
    let state = new.path().join("deep/state");
    let received = import(&file, &state).unwrap();
    assert_eq!(received, sent);
    let (before, after) = (files(old.path()), files(&state));
    let names: Vec<&str> = after.keys().map(String::as_str).collect();
    assert_eq!(names, ["ledger", "ledger.head", "mask.json", "owner.id"]);
    for name in ["ledger", "ledger.head", "owner.id"] {
        assert!(before[name] == after[name], "{name}");
    }
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/campaign-1/mask.json");
    assert!(after["mask.json"] == read(&fixture));
    let ledger = state.join("ledger");
    assert_eq!(
        survey(&ledger, |_| {}).unwrap(),
        survey(&old.path().join("ledger"), |_| {}).unwrap()
    );
    let state = replay_file(&ledger).unwrap().digest().unwrap();
    assert_eq!(
        (state, received.state),
        (replay_file(&old.path().join("ledger")).unwrap().digest().unwrap(), state)
    );
    Ledger::open(&ledger, |_| {}).unwrap();
}

#[test]
fn what_a_crash_left_behind_the_head_moves_too() {
    let (dir, path) = frozen::copied();
    std::fs::write(&path, [read(&path), b"torn".to_vec()].concat()).unwrap();
    let file = dir.path().join("colony.tar");
    export(dir.path(), &file).unwrap();
    let state = dir.path().join("new");
    import(&file, &state).unwrap();
    assert!(read(&state.join("ledger")) == read(&path));
}

#[test]
fn export_refuses_a_held_a_damaged_and_a_missing_ledger_and_overwrites_nothing() {
    let (dir, path) = frozen::copied();
    let file = dir.path().join("colony.tar");
    let held = Ledger::open(&path, |_| {}).unwrap();
    assert!(matches!(export(dir.path(), &file), Err(ServiceError::Locked(_))));
    drop(held);
    std::fs::write(&file, b"mine").unwrap();
    assert!(matches!(export(dir.path(), &file), Err(ServiceError::File { .. })));
    assert_eq!(read(&file), b"mine");
    std::fs::remove_file(&file).unwrap();
    let mut bytes = read(&path);
    bytes[5000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(export(dir.path(), &file), Err(ServiceError::Damaged { .. })));
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(export(&nowhere, &file), Err(ServiceError::File { .. })));
    assert!(!file.exists() && !nowhere.exists());
}

#[test]
fn import_refuses_a_folder_that_holds_anything_of_a_ledger() {
    let (_old, file, _) = exported();
    for (name, bytes) in [("ledger", &b""[..]), ("ledger.head", b"other"), ("owner.id", b"other")] {
        let new = tempfile::tempdir().unwrap();
        std::fs::write(new.path().join(name), bytes).unwrap();
        let before = files(new.path());
        let error = import(&file, new.path()).unwrap_err();
        assert!(matches!(&error, ServiceError::Occupied(at) if at.ends_with(name)), "{error}");
        assert!(files(new.path()) == before, "{name}");
    }
    let new = tempfile::tempdir().unwrap();
    import(&file, new.path()).unwrap();
    assert!(matches!(import(&file, new.path()), Err(ServiceError::Occupied(_))));
}

/// The files are put in place one by one, the ledger last: no coordinator begins anew in between.
#[test]
fn an_interrupted_import_is_not_begun_on_and_can_be_made_again() {
    let (old, file, sent) = exported();
    for there in [&["owner.id"][..], &["owner.id", "ledger.head"]] {
        let new = tempfile::tempdir().unwrap();
        for name in there {
            std::fs::copy(old.path().join(name), new.path().join(name)).unwrap();
        }
        if there.contains(&"ledger.head") {
            let error = survey(&new.path().join("ledger"), |_| {}).unwrap_err();
            assert!(matches!(error, ServiceError::Damaged { .. }), "{error}");
        }
        assert_eq!(import(&file, new.path()).unwrap(), sent);
    }
}

#[test]
fn a_damaged_file_is_refused_with_the_place() {
    let (old, file, _) = exported();
    let (bytes, ledger) = (read(&file), read(&old.path().join("ledger")));
    let start = bytes.windows(ledger.len()).position(|w| w == ledger).unwrap();
    let place = places(&ledger)[11].clone();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = bytes.clone();
        change(&mut changed);
        std::fs::write(&file, changed).unwrap();
    };
    with(&|b| b[start + place.end - 1] ^= 1);
    refused(&file, &[&format!("at byte {}", start + place.start), "record 12", "have changed"]);
    with(&|b| b.truncate(start + 10));
    refused(&file, &[&format!("at byte {}", start - 512), "ledger"]);
    with(&|b| b.truncate(700));
    refused(&file, &["at byte 0", "contents.json"]);
    with(&|b| b[start - 512 + 3] ^= 1);
    refused(&file, &[&format!("at byte {}", start - 512), "checksum"]);
    with(&|b| b.clear());
    refused(&file, &["at byte 0", "ends before"]);
}

fn entry(archive: &mut Builder<Vec<u8>>, name: &[u8], kind: EntryType, bytes: &[u8]) {
    let mut header = Header::new_ustar();
    // Not by `set_path`, which refuses what is to be refused here.
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    archive.append(&header, bytes).unwrap();
}

#[test]
fn only_known_names_and_plain_files_are_taken() {
    let (old, file, _) = exported();
    let list = |names: &[&str]| {
        let part = |name: &&str| {
            let bytes = read(&old.path().join("ledger"));
            let blake3 = uspx_domain::Digest::of(&bytes);
            serde_json::json!({"name": name, "bytes": bytes.len(), "blake3": blake3})
        };
        let files: Vec<_> = names.iter().map(part).collect();
        serde_json::json!({"version": 1, "records": 1, "files": files}).to_string().into_bytes()
    };
    let forge = |names: &[&str], entries: &[(&[u8], EntryType)]| {
        let mut archive = Builder::new(Vec::new());
        entry(&mut archive, b"contents.json", EntryType::Regular, &list(names));
        for (name, kind) in entries {
            entry(&mut archive, name, *kind, &read(&old.path().join("ledger")));
        }
        std::fs::write(&file, archive.into_inner().unwrap()).unwrap();
    };
    let plain = EntryType::Regular;
    for name in ["../ledger", "/etc/passwd", "ledger/x", "mask.json", "ledger.head/../ledger"] {
        forge(&[name, "ledger.head", "ledger"], &[(name.as_bytes(), plain)]);
        refused(&file, &["its list names"]);
        forge(&["ledger.head", "ledger"], &[(name.as_bytes(), plain)]);
        refused(&file, &["stands where the plain file `ledger.head` belongs"]);
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::GNULongName, EntryType::XHeader] {
        forge(&["ledger.head", "ledger"], &[(b"ledger.head", kind)]);
        refused(&file, &["stands where the plain file"]);
    }
    forge(&["ledger"], &[(b"ledger", plain)]);
    refused(&file, &["not a ledger and its head"]);
    forge(&["ledger.head", "ledger"], &[(b"ledger.head", plain), (b"ledger", plain)]);
    refused(&file, &["head"]);
}

#[test]
fn lengths_that_the_file_has_no_room_for_are_refused_unread() {
    let (_old, file, _) = exported();
    let mut bytes = read(&file);
    let mut header = Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_size(8 << 30);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    std::fs::write(&file, bytes).unwrap();
    refused(&file, &["more than there can be"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_changed_file_is_refused_or_gives_the_same_ledger(at: usize, flip in 1u8.., cut: bool, early: bool) {
        let (old, file, _) = exported();
        let mut bytes = read(&file);
        // Headers and list are a small part of it.
        let at = at % if early { 3000.min(bytes.len()) } else { bytes.len() };
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        std::fs::write(&file, bytes).unwrap();
        let new = tempfile::tempdir().unwrap();
        let state = new.path().join("state");
        if import(&file, &state).is_err() {
            prop_assert!(!state.exists());
        } else {
            for name in ["ledger", "ledger.head", "owner.id"] {
                prop_assert!(read(&state.join(name)) == read(&old.path().join(name)), "{} differs", name);
            }
            prop_assert!(head_path(&state.join("ledger")).exists());
        }
    }
}

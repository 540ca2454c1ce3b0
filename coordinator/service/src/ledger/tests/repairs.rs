//! Repairs in a real folder, of the frozen ledger: what is kept, what is aside, what is said.

use super::{first_change, frozen, places, record_at};
use crate::ledger::{Fault, Ledger, Loss, Repair, head_path, repair, replay_file, survey};
use crate::{Coordinator, CoordinatorSettings, PromptBook, ServiceError};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uspx_artifact::Store;
use uspx_bus::EmbeddedBus;
use uspx_colony::{Record, State};

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Every file of a ledger's folder.
fn folder(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    entries.map(|e| e.unwrap().path()).map(|p| (p.clone(), read(&p))).collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = read(path);
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn open(path: &Path) -> Result<Vec<Record>, ServiceError> {
    let mut records = Vec::new();
    Ledger::open(path, |r| records.push(r)).map(|_| records)
}

fn loss(repair: Repair) -> Loss {
    repair.loss.expect("nothing was damaged")
}

/// A change of one of the two files, at a share of its length.
#[derive(Debug, Clone, Copy)]
enum Change {
    Flip(u8),
    Zero(usize),
    Cut,
    Take(usize),
    Repeat(usize),
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>, at: usize) {
        let at = at % bytes.len().max(1);
        let to = |n: usize| (at + n).min(bytes.len());
        match self {
            Self::Flip(bits) => bytes[at] ^= bits,
            Self::Zero(n) => {
                let end = to(n);
                bytes[at..end].fill(0);
            }
            Self::Cut => bytes.truncate(at),
            Self::Take(n) => drop(bytes.drain(at..to(n))),
            Self::Repeat(n) => {
                let piece = bytes[at..to(n)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<(Change, usize, bool)>> {
    let change = prop_oneof![
        (1u8..).prop_map(Change::Flip),
        (1usize..9000).prop_map(Change::Zero),
        Just(Change::Cut),
        (1usize..9000).prop_map(Change::Take),
        (1usize..9000).prop_map(Change::Repeat),
    ];
    proptest::collection::vec((change, any::<usize>(), proptest::bool::weighted(0.2)), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_repaired_ledger_is_a_beginning_of_the_old_one_and_all_the_rest_lies_aside(changes in changes()) {
        let (_dir, path) = frozen::copied();
        let whole = read(&path);
        for (damage, at, of_head) in changes {
            let file = if of_head { head_path(&path) } else { path.clone() };
            change(&file, |bytes| if !bytes.is_empty() { damage.apply(bytes, at) });
        }
        let (ledger, head, before) = (read(&path), read(&head_path(&path)), folder(&path));
        let told = match repair(&path, true) {
            Ok(told) => told,
            // Neither first bytes, nor head, nor first record: nothing says that this is a ledger.
            Err(ServiceError::NotALedger(_)) => return Ok(()),
            Err(other) => panic!("{other}"),
        };
        prop_assert!(folder(&path) == before, "a dry run changed something");
        let done = repair(&path, false).unwrap();
        prop_assert_eq!(done.kept, told.kept);
        let Some(Loss { aside, bytes, .. }) = done.loss else {
            prop_assert!(folder(&path) == before, "nothing was damaged, but something changed");
            return Ok(());
        };
        let (aside, kept) = (aside.unwrap(), done.kept.bytes as usize);
        prop_assert!(read(&aside.ledger) == ledger && read(&head_path(&aside.ledger)) == head);
        prop_assert_eq!(bytes as usize, ledger.len().saturating_sub(kept));
        prop_assert!(read(&path) == whole[..kept], "not a beginning of the old one");
        let places = places(&whole);
        if let Some(at) = first_change(&whole, &ledger) {
            let (first_bad, _) = record_at(&places, at);
            prop_assert!(first_bad == 0 || done.kept.records >= first_bad - 1, "less than the longest beginning");
        }
        let records = open(&path).unwrap();
        prop_assert_eq!(records.len() as u64, done.kept.records);
        prop_assert!(frozen::records().starts_with(&records));
        prop_assert_eq!(repair(&path, false).unwrap().loss, None);
    }
}

/// What is said of the frozen ledger with `damaged` records changed.
fn said(damaged: &[usize]) -> (Repair, Vec<Record>) {
    let (_dir, path) = frozen::copied();
    let places = places(&read(&path));
    change(&path, |bytes| damaged.iter().for_each(|n| bytes[places[n - 1].end - 1] ^= 4));
    (repair(&path, true).unwrap(), frozen::records())
}

fn answers(records: &[Record]) -> BTreeSet<uspx_domain::TaskId> {
    let task =
        |r: &Record| if let Record::Accepted { answer } = r { Some(answer.task) } else { None };
    records.iter().filter_map(task).collect()
}

#[test]
fn it_says_what_is_lost_and_what_is_asked_again() {
    let count = frozen::records().len();
    let mut kinds = BTreeSet::new();
    for first in (1..=count).step_by(3) {
        let (repaired, records) = said(&[first]);
        assert_eq!(repaired.kept.records as usize, first - 1);
        let loss = loss(repaired);
        assert_eq!((loss.damage.sequence, loss.damage.fault), (first as u64, Fault::Changed));
        assert_eq!(loss.records, Some((count - first + 1) as u64));
        assert_eq!(loss.readable as usize, count - first);
        let (kept, behind) = (answers(&records[..first - 1]), answers(&records[first..]));
        assert_eq!(loss.answers as usize, behind.difference(&kept).count());
        let mut state = State::default();
        records[..first - 1].iter().for_each(|r| state.fold(r));
        let open = state.tickets().values().filter(|t| !t.is_settled()).count();
        assert_eq!(loss.unanswered.values().sum::<u64>() as usize, open);
        kinds.extend(loss.unanswered.into_keys());
    }
    assert!(kinds.len() >= 3, "only these kinds of work were ever unanswered: {kinds:?}");
}

#[test]
fn records_between_two_damaged_ones_are_found() {
    let (repaired, records) = said(&[5, 9, 10]);
    let loss = loss(repaired);
    assert_eq!(loss.readable as usize, records.len() - 4 - 3);
}

#[test]
fn copies_never_overwrite_one_another() {
    let (dir, path) = frozen::copied();
    let mut copies = Vec::new();
    for n in 1..=3 {
        let at = read(&path).len() - 1;
        change(&path, |bytes| bytes[at] ^= 1);
        let damaged = (read(&path), read(&head_path(&path)));
        let aside = loss(repair(&path, false).unwrap()).aside.unwrap();
        assert_eq!(aside.ledger, dir.path().join(format!("ledger.damaged-{n}")));
        copies.push((aside.ledger, damaged));
    }
    for (copy, (ledger, head)) in copies {
        assert!(read(&copy) == ledger && read(&head_path(&copy)) == head);
    }
}

#[test]
fn it_refuses_a_ledger_that_is_held_missing_or_another_versions() {
    let (dir, path) = frozen::copied();
    let held = Ledger::open(&path, |_| {}).unwrap();
    for dry_run in [true, false] {
        assert!(matches!(repair(&path, dry_run), Err(ServiceError::Locked(_))));
    }
    drop(held);
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(repair(&nowhere, false), Err(ServiceError::File { .. })) && !nowhere.exists());
    change(&path, |bytes| {
        bytes[7] = b'4';
        bytes[8 + 20] ^= 1;
    });
    let before = folder(&path);
    assert!(matches!(repair(&path, false), Err(ServiceError::NotALedger(_))));
    assert!(folder(&path) == before);
}

#[test]
fn a_record_that_this_version_does_not_know_is_not_cut_off() {
    let (_dir, path) = frozen::copied();
    let mut log =
        crate::ledger::Log::open(crate::ledger::Folder::hold(&path).unwrap(), |_, _| Ok(()))
            .unwrap();
    log.append(&[&rmp_serde::to_vec_named("from_the_future").unwrap()[..], b"damaged"]).unwrap();
    drop(log);
    let at = read(&path).len() - 1;
    change(&path, |bytes| bytes[at] ^= 1);
    let before = folder(&path);
    assert!(matches!(repair(&path, false), Err(ServiceError::UnknownRecord { .. })));
    assert!(folder(&path) == before);
}

fn coordinator(state: &Path) -> Result<Coordinator, ServiceError> {
    let book = PromptBook::new(vec![], vec![], vec![]);
    let settings = CoordinatorSettings::new("test", state);
    Coordinator::open(settings, Arc::new(EmbeddedBus::new()), Store::memory(), book)
}

#[test]
fn a_coordinator_stops_at_damage_with_its_place_and_starts_after_the_repair() {
    let (dir, path) = frozen::copied();
    let place = places(&read(&path))[20].clone();
    change(&path, |bytes| bytes[place.start + 100] ^= 0x20);
    let before = folder(&path);
    let words = coordinator(dir.path()).err().unwrap().to_string();
    let at = format!("damaged at byte {}, record 21", place.start);
    for word in [&at, "have changed", "uspx ledger repair", "Restore the ledger", "ledger is"] {
        assert!(words.contains(word), "no `{word}` in: {words}");
    }
    assert!(folder(&path) == before, "a start changed a damaged ledger");
    repair(&path, false).unwrap();
    let mut wanted = State::default();
    frozen::records()[..20].iter().for_each(|r| wanted.fold(r));
    let opened = coordinator(dir.path()).unwrap();
    assert_eq!(opened.state().digest().unwrap(), wanted.digest().unwrap());
    drop(opened);
    assert_eq!(replay_file(&path).unwrap().digest().unwrap(), wanted.digest().unwrap());
    assert_eq!(survey(&path, |_| {}).unwrap().records, 20);
}

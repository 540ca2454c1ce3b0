//! Nothing that a record or a release names is ever deleted.

use super::*;
use crate::ledger::Ledger;
use crate::ledger::tests::frozen;
use proptest::prelude::*;
use std::fs::{self, File};
use std::path::Path;
use tempfile::TempDir;
use uspx_artifact::encode_manifest;
use uspx_colony::campaign::StudentPlan;
use uspx_colony::{PlannedTask, Purpose, Snapshot, Stage, State};
use uspx_domain::{
    Answer, ChunkEntry, Coverage, Export, ExportFormat, FileEntry, Fingerprint, Manifest, Outcome,
    Part, Place, Round, Sae, SaeRecipe, SaeSummary, StoredFile, TaskId, Told, Work,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Every reference in a record's bytes, found by its form alone: `{digest: 64 digits, bytes: …}`.
fn references(record: &Record) -> BTreeSet<Digest> {
    let bytes = rmp_serde::to_vec_named(record).unwrap();
    let begins = b"\x82\xa6digest\xd9\x40";
    let found = |at: usize| {
        let rest = bytes[at..].strip_prefix(begins)?;
        let (hex, after) = rest.split_at_checked(64)?;
        let text = after.starts_with(b"\xa5bytes").then(|| String::from_utf8(hex.to_vec()))?;
        Digest::try_from(text.unwrap()).ok()
    };
    (0..bytes.len()).filter_map(found).collect()
}

fn blob(n: u8) -> BlobRef {
    BlobRef::to(&[n; 9])
}

fn task(n: u8, work: Work<u32>) -> PlannedTask {
    let model = Fingerprint(Digest::of(b"model"));
    let purpose = Purpose::Evidence;
    PlannedTask { id: TaskId::derived(&[n]), epoch: 1, index: n.into(), model, purpose, work }
}

fn accepted(n: u8, outcome: Outcome) -> Record {
    let (task, worker) = (TaskId::derived(&[n]), "w".parse().unwrap());
    Record::Accepted {
        answer: Box::new(Answer { task, worker, outcome, millis: 1, skipped: vec![], seams: 0 }),
    }
}

fn worth() -> SaeSummary {
    SaeSummary {
        steps: 1,
        tokens: 1,
        l0: 1.0,
        explained_variance: 0.5,
        dead: 0,
        clean: 1.0,
        grafted: 2.0,
        zero: 3.0,
        mean: 3.0,
    }
}

/// A record that names blob `n`, one of several kinds.
fn naming(n: u8) -> Record {
    let (coverage, blob) = (Coverage::default(), blob(n));
    match n % 5 {
        4 => {
            let told = Told { blob, tokens: 1 };
            accepted(n, Outcome::Told { told, loss: None, epoch: 1, left: 0 })
        }
        3 => {
            let files = vec![StoredFile { path: "cfg.json".into(), blob }];
            accepted(n, Outcome::Sae { files, summary: worth() })
        }
        0 => accepted(n, Outcome::Labels { blob, prompts: 1, tokens: 1, dreams: 0, coverage }),
        1 => accepted(n, Outcome::Exported { files: vec![StoredFile { path: "a".into(), blob }] }),
        _ => {
            let (adapter, labels) = (Some(blob), vec![self::blob(200)]);
            let (calibration, format) = (vec![], ExportFormat::GGUF);
            let export = Export { adapter, calibration, finish: 4, labels, format };
            let tasks = vec![task(n, Work::Export(export))];
            Record::EpochOpened { epoch: 1, stage: Stage::Export, tasks }
        }
    }
}

/// Tasks of kinds that the frozen ledger, which stays as it is, cannot have: a new kind of job puts
/// one here, with a blob in every place that can hold one.
fn newer_kinds() -> Vec<Work<u32>> {
    let recipe = SaeRecipe::default();
    let sae = Sae { prompts: vec![0, 1], judged: 1, layer: 0, recipe };
    let recipe = StudentPlan::default().recipes[0];
    let told = vec![Told { blob: blob(203), tokens: 1 }];
    let part = Part {
        train: vec![blob(201)],
        validation: vec![blob(202)],
        recipe,
        rounds: vec![Round { machines: 1, told }],
        steps: 1,
        place: Place::End,
    };
    vec![Work::Sae(sae), Work::Part(part)]
}

#[test]
fn every_reference_in_a_record_is_named_whatever_its_kind() {
    let mut records = frozen::records();
    let tasks = newer_kinds().into_iter().map(|work| task(0, work)).collect();
    records.push(Record::EpochOpened { epoch: 1, stage: Stage::Trace, tasks });
    records.extend((0..5).map(naming));
    let (mut kinds, mut total) = (BTreeSet::new(), 0);
    for record in &records {
        let named: BTreeSet<Digest> = blobs(record).iter().map(|blob| blob.digest).collect();
        assert_eq!(named, references(record), "a reference is forgotten: {record:?}");
        total += named.len();
        if let Record::EpochOpened { tasks, .. } = record {
            kinds.extend(tasks.iter().map(|task| task.work.kind()));
        }
    }
    assert!(total > 20, "{total} references");
    let all: BTreeSet<&str> = Work::<u32>::KINDS.iter().copied().collect();
    assert_eq!(kinds, all, "a new kind of job: put one into newer_kinds()");
}

/// Wherever in a campaign a snapshot is taken, what its state holds of what was named stays named.
#[test]
fn every_reference_in_a_snapshot_is_named() {
    let mut config = frozen::world::service::small("blobs");
    (config.sae.layers, config.together.machines) = (vec![1], 2);
    let ledger = frozen::world::honest(config).0.ledger;
    let (mut state, mut named) = (State::default(), BTreeSet::new());
    for (at, record) in ledger.iter().enumerate() {
        state.fold(record);
        let snapshot = Snapshot::of(at as u64, &state, BTreeSet::new());
        let snapshot = Record::Snapshot(Box::new(snapshot.unwrap()));
        let found: BTreeSet<Digest> = blobs(&snapshot).iter().map(|blob| blob.digest).collect();
        assert_eq!(found, references(&snapshot), "a reference is forgotten after record {at}");
        named.extend(found);
    }
    let all: BTreeSet<Digest> = ledger.iter().flat_map(blobs).map(|blob| blob.digest).collect();
    assert!(named == all && all.len() > 20, "{} of {} were ever named", named.len(), all.len());
}

/// A store in a folder, and a state folder.
struct World {
    dir: TempDir,
    store: Store,
}

impl World {
    fn new(records: &[Record]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("store")).unwrap();
        fs::create_dir_all(dir.path().join("state")).unwrap();
        let store = Store::folder(&dir.path().join("store")).unwrap();
        let world = Self { dir, store };
        Ledger::open(&world.ledger(), |_| {}).unwrap().append(records).unwrap();
        world
    }

    fn ledger(&self) -> PathBuf {
        self.dir.path().join("state/ledger")
    }

    fn path(&self, blob: &BlobRef) -> PathBuf {
        let hex = blob.digest.hex();
        self.dir.path().join("store/blobs").join(&hex[..2]).join(hex)
    }

    fn put(&self, n: u8, old: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let blob = runtime
            .block_on(self.store.put_blob(vec![n; 9].into(), &uspx_artifact::silent))
            .unwrap();
        if old {
            let file = File::options().write(true).open(self.path(&blob)).unwrap();
            file.set_modified(SystemTime::now() - 9 * DAY).unwrap();
        }
    }

    /// A release whose one file is that blob; without a marker it is not yet the newest.
    fn release(&self, release: u64, n: u8, marked: bool) {
        let BlobRef { digest, bytes } = blob(n);
        let chunks = vec![ChunkEntry { bytes, digest }];
        let files = vec![FileEntry { path: "f".into(), bytes, digest, chunks }];
        let model = Fingerprint(Digest::of(b"model"));
        let previous = release.checked_sub(1).filter(|n| *n > 0);
        let colony = "c".to_owned();
        let manifest =
            Manifest { version: 1, release, colony, teacher: model, base: model, previous, files };
        let bytes = encode_manifest(&manifest).unwrap();
        let marker = format!("{{\"release\":{release},\"manifest\":\"{}\"}}", Digest::of(&bytes));
        self.write(&format!("releases/{release}/manifest.json"), &bytes);
        if marked {
            self.write(&format!("latest/{release}"), marker.as_bytes());
        }
    }

    fn write(&self, key: &str, bytes: &[u8]) {
        let path = self.dir.path().join("store").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn collect(&self, dry_run: bool) -> Result<Collected, ServiceError> {
        let states = vec![self.dir.path().join("state")];
        let how = Collect { states, older_than: 7 * DAY, dry_run };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(collect(&self.store, &how))
    }

    fn there(&self) -> BTreeSet<u8> {
        (0..=u8::MAX).filter(|n| self.path(&blob(*n)).exists()).collect()
    }
}

fn blobs_at(n: impl IntoIterator<Item = u8>) -> BTreeSet<u8> {
    n.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_named_or_young_stays_and_the_rest_goes(
        in_ledger in proptest::collection::btree_set(0u8..16, 1..6),
        in_releases in proptest::collection::vec((0u8..16, any::<bool>()), 0..4),
        stored in proptest::collection::btree_map(0u8..16, any::<bool>(), 0..16),
    ) {
        let records: Vec<Record> = in_ledger.iter().map(|n| naming(*n)).collect();
        let world = World::new(&records);
        stored.iter().for_each(|(n, old)| world.put(*n, *old));
        // The newest may be unmarked, as a publisher that died leaves it.
        let last = in_releases.len() as u64;
        for (release, (n, marked)) in (1..).zip(&in_releases) {
            world.release(release, *n, *marked || release < last);
        }
        let named = |n: &u8| in_ledger.contains(n) || in_releases.iter().any(|(m, _)| m == n);
        let kept = blobs_at(stored.iter().filter(|(n, old)| named(n) || !**old).map(|(n, _)| *n));
        let all = blobs_at(stored.keys().copied());
        match world.collect(true) {
            Ok(told) => {
                prop_assert_eq!(world.there(), all.clone(), "a dry run deleted");
                prop_assert_eq!(told.deleted.blobs as usize, all.len() - kept.len());
                prop_assert_eq!(world.collect(false).unwrap(), told);
                prop_assert_eq!(world.there(), kept);
            }
            Err(ServiceError::Stranger { .. }) => {
                prop_assert!(stored.keys().all(|n| !in_ledger.contains(n)));
                prop_assert!(world.collect(false).is_err());
                prop_assert_eq!(world.there(), all);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn what_cannot_be_known_stops_it_before_anything_is_deleted() {
    type Break = fn(&World);
    let breaks: [(&str, Break); 6] = [
        ("releases/1/manifest.json", |w| w.write("releases/1/manifest.json", b"{}")),
        ("releases/1/manifest.json", |w| {
            fs::remove_file(w.dir.path().join("store/releases/1/manifest.json")).unwrap()
        }),
        ("releases/2/manifest.json", |w| w.write("releases/2/manifest.json", b"not one")),
        ("releases/2/other", |w| w.write("releases/2/other", b"?")),
        ("latest/1", |w| w.write("latest/1", b"?")),
        ("damaged at byte", |w| {
            let mut bytes = fs::read(w.ledger()).unwrap();
            bytes[30] ^= 1;
            fs::write(w.ledger(), bytes).unwrap();
        }),
    ];
    for (word, break_it) in breaks {
        let world = World::new(&[naming(1)]);
        (1..5).for_each(|n| world.put(n, true));
        world.release(1, 2, true);
        assert_eq!(world.collect(true).unwrap().deleted.blobs, 2);
        break_it(&world);
        for dry_run in [true, false] {
            let words = world.collect(dry_run).unwrap_err().to_string();
            assert!(words.contains(word), "no `{word}` in: {words}");
        }
        assert_eq!(world.there(), blobs_at(1..5), "{word}");
    }
}

#[test]
fn it_refuses_beside_a_coordinator_and_without_a_ledger() {
    let world = World::new(&[naming(1)]);
    (1..4).for_each(|n| world.put(n, true));
    let running = Ledger::open(&world.ledger(), |_| {}).unwrap();
    assert!(matches!(world.collect(false), Err(ServiceError::Locked(_))));
    assert_eq!(world.collect(true).unwrap().deleted.blobs, 2);
    drop(running);
    fs::remove_file(world.ledger()).unwrap();
    fs::remove_file(crate::ledger::head_path(&world.ledger())).unwrap();
    assert!(matches!(world.collect(false), Err(ServiceError::File { .. })));
    assert_eq!(world.there(), blobs_at(1..4));
}

#[test]
fn what_uspx_did_not_write_is_not_touched() {
    let world = World::new(&[naming(1)]);
    (1..3).for_each(|n| world.put(n, true));
    let foreign = ["blobs/ab/notes.txt", "other/file"];
    for key in foreign {
        world.write(key, b"mine");
        let path = world.dir.path().join("store").join(key);
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - 9 * DAY).unwrap();
    }
    assert_eq!(world.collect(false).unwrap().deleted, Count { blobs: 1, bytes: 9 });
    let there = |key: &&str| Path::new(&world.dir.path().join("store")).join(key).exists();
    assert!(foreign.iter().all(there));
}

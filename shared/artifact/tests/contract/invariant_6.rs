//! Invariant 6, with a fault at each step in turn: a manifest appears only after every blob that it
//! names is stored and read back; `latest` only moves forward; a pull is all or nothing.

use crate::backends::over_every_backend;
use crate::contracts;
use crate::faulty::Faulty;
use crate::samples::{assert_same, draft, keys};
use libtest_mimic::Trial;
use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use tempfile::TempDir;
use uspx_artifact::{PullOptions, Store, current, local_releases, pull, silent, verify};
use uspx_domain::{BlobRef, Manifest};

pub fn trials() -> Vec<Trial> {
    over_every_backend(contracts![
        invariant_6_a_publisher_may_fail_at_any_write,
        invariant_6_a_publisher_may_fail_at_any_read,
        invariant_6_a_pull_may_fail_at_any_read,
    ])
}

/// The files that releases of these tests have.
const FILES: [&str; 3] = ["README.md", "report.json", "gptq/config.json"];

fn release(number: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("gptq")).unwrap();
    for file in FILES {
        fs::write(folder.path().join(file), format!("{file} of release {number}")).unwrap();
    }
    folder
}

async fn publish(store: &Store, number: u64) -> Result<Manifest, uspx_artifact::ArtifactError> {
    let previous = (number > 1).then(|| number - 1);
    store.publish(release(number).path(), &draft(previous), &silent).await
}

/// Everything that is called a manifest, marked or not, names blobs that are there, whole.
async fn assert_no_manifest_without_its_blobs(store: &Store) {
    for key in keys(store, "releases").await {
        let bytes = store.backend().get(&Key::from(key)).await.unwrap().bytes().await.unwrap();
        let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        for chunk in manifest.files.iter().flat_map(|file| &file.chunks) {
            store.verify_blob(&BlobRef { digest: chunk.digest, bytes: chunk.bytes }).await.unwrap();
        }
    }
}

/// Release 2 is published on stores of their own that fail after 0, 1, 2, … steps, until one does
/// not.
async fn publish_at_any(store: Store, failing_after: fn(i64, Faulty) -> Faulty) {
    for step in 0.. {
        let part = PrefixStore::new(store.backend(), format!("step-{step}"));
        let store = Store::over(Arc::new(part), "step://");
        publish(&store, 1).await.unwrap();
        let whole = Faulty { prefix: "", ..Faulty::over(&store) };
        let result = publish(&failing_after(step, whole).store().0, 2).await;
        assert_no_manifest_without_its_blobs(&store).await;
        let newest = store.latest().await.unwrap();
        assert_eq!(newest, Some(if result.is_ok() { 2 } else { 1 }), "step {step}: {result:?}");
        if result.is_ok() {
            assert!(step as usize >= FILES.len(), "{step} steps cannot be all");
            return;
        }
        // Whatever it left behind, the next one gets through, and the numbers have no gap.
        if store.settle().await.unwrap() == Some(1) {
            publish(&store, 2).await.unwrap();
        }
        assert_eq!(store.list().await.unwrap(), [1, 2], "step {step}");
        assert_no_manifest_without_its_blobs(&store).await;
    }
}

async fn invariant_6_a_publisher_may_fail_at_any_write(store: Store) {
    publish_at_any(store, |step, whole| Faulty { writes_left: AtomicI64::new(step), ..whole })
        .await;
}

async fn invariant_6_a_publisher_may_fail_at_any_read(store: Store) {
    publish_at_any(store, |step, whole| Faulty { reads_left: AtomicI64::new(step), ..whole }).await;
}

async fn invariant_6_a_pull_may_fail_at_any_read(store: Store) {
    publish(&store, 1).await.unwrap();
    publish(&store, 2).await.unwrap();
    for step in 0.. {
        let home = tempfile::tempdir().unwrap();
        let first = PullOptions { release: Some(1), ..PullOptions::default() };
        pull(&store, home.path(), &first, &silent).await.unwrap();
        let whole = Faulty { prefix: "", ..Faulty::over(&store) };
        let (failing, _) = Faulty { reads_left: AtomicI64::new(step), ..whole }.store();
        let result = pull(&failing, home.path(), &PullOptions::default(), &silent).await;

        let number = if result.is_ok() { 2 } else { 1 };
        let used = current(home.path()).unwrap().unwrap();
        assert_eq!(used.manifest.release, number, "step {step}: {result:?}");
        assert_same(&used.manifest, release(number).path(), &used.folder);
        assert_eq!(verify(home.path()).unwrap().damaged, []);
        assert_eq!(
            local_releases(home.path()).unwrap(),
            (1..=number).collect::<Vec<_>>(),
            "step {step}"
        );
        if result.is_ok() {
            assert!(step as usize >= FILES.len(), "{step} steps cannot be all");
            return;
        }
    }
}

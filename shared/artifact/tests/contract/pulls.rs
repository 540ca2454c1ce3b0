//! Pulls: all or nothing, resumed, one at a time, nothing outside the folder.

use crate::backends::over_every_backend;
use crate::contracts;
use crate::faulty::Faulty;
use crate::samples::{
    Watch, assert_same, blob_key, draft, forge, large_chunks, overwrite, publish, student,
};
use libtest_mimic::Trial;
use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::Semaphore;
use uspx_artifact::{
    ArtifactError, ErrorKind, PullOptions, PullReport, Pulled, Store, current, local_releases,
    pull, silent, verify,
};
use uspx_domain::{ChunkEntry, Digest, FileEntry};

pub fn trials() -> Vec<Trial> {
    over_every_backend(contracts![
        what_is_published_is_pulled,
        an_interrupted_pull_is_resumed,
        a_body_cut_short_changes_nothing,
        a_tampered_chunk_changes_nothing,
        a_tampered_manifest_changes_nothing,
        a_second_pull_is_turned_away,
        hostile_paths_are_refused
    ])
}

async fn take(store: &Store, dest: &Path) -> Result<PullReport, ArtifactError> {
    pull(store, dest, &PullOptions::default(), &silent).await
}

fn in_use(dest: &Path) -> Option<u64> {
    current(dest).unwrap().map(|local| local.manifest.release)
}

async fn what_is_published_is_pulled(store: Store) {
    let (folder, home) = (student(1), tempfile::tempdir().unwrap());
    let dest = home.path().join("students");
    let nothing = take(&store, &dest).await.unwrap_err();
    assert!(matches!(nothing, ArtifactError::NoRelease { release: None, .. }), "{nothing:?}");
    let manifest = store.publish(folder.path(), &draft(None), &silent).await.unwrap();

    let watch = Watch::default();
    let report = pull(&store, &dest, &PullOptions::default(), &|now| watch.see(now)).await.unwrap();
    assert_eq!((report.outcome, report.release, report.previous), (Pulled::Fetched, 1, None));
    assert_eq!((report.fetched, report.resumed), (report.bytes, 0));
    assert_eq!(watch.last().done, report.bytes);
    assert_same(&manifest, folder.path(), &report.folder);
    assert_eq!(std::fs::read(dest.join("current/README.md")).unwrap(), b"the same in all");
    assert_eq!(current(&dest).unwrap().unwrap().manifest, manifest);

    let (counting, faulty) = Faulty::over(&store).store();
    let again = take(&counting, &dest).await.unwrap();
    assert_eq!((again.outcome, again.fetched), (Pulled::UpToDate, 0));
    assert_eq!(faulty.reads.load(Ordering::SeqCst), 0, "nothing is transferred");

    publish(&store, 2, Some(1)).await;
    let next = take(&store, &dest).await.unwrap();
    assert_eq!((next.outcome, next.release, next.previous), (Pulled::Fetched, 2, Some(1)));
    assert_eq!(
        next.resumed,
        "the same in all".len() as u64,
        "what the releases share is not sent again"
    );
    assert_eq!(local_releases(&dest).unwrap(), [1, 2], "the previous one is kept");

    let back =
        pull(&store, &dest, &PullOptions { release: Some(1), ..PullOptions::default() }, &silent)
            .await
            .unwrap();
    assert_eq!((back.outcome, back.release, back.fetched), (Pulled::Switched, 1, 0));
    assert_eq!(in_use(&dest), Some(1));
    assert!(!dest.join(".partial").exists());
}

async fn an_interrupted_pull_is_resumed(store: Store) {
    let home = tempfile::tempdir().unwrap();
    let dest = home.path();
    publish(&store, 1, None).await;
    take(&store, dest).await.unwrap();
    let folder = student(2);
    let manifest = store.publish(folder.path(), &draft(Some(1)), &silent).await.unwrap();

    let one_by_one = PullOptions { at_once: 1, ..PullOptions::default() };
    let (broken, _) = Faulty { reads_left: AtomicI64::new(3), ..Faulty::over(&store) }.store();
    let error = pull(&broken, dest, &one_by_one, &silent).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("blobs/"), "{error}");
    assert_eq!(in_use(dest), Some(1));
    assert_eq!(local_releases(dest).unwrap(), [1]);

    let (counting, faulty) = Faulty::over(&store).store();
    let watch = Watch::default();
    let report = pull(&counting, dest, &one_by_one, &|now| watch.see(now)).await.unwrap();
    let shared = "the same in all".len() as u64;
    let chunks: usize = manifest.files.iter().map(|file| file.chunks.len()).sum();
    assert_eq!(
        faulty.reads.load(Ordering::SeqCst) as usize,
        chunks - 1 - 3,
        "verified chunks are not fetched again"
    );
    assert!(report.resumed > shared && report.fetched < report.bytes, "{report:?}");
    assert_eq!(report.fetched + report.resumed, report.bytes);
    assert_same(&manifest, folder.path(), &report.folder);
    assert_eq!(in_use(dest), Some(2));
}

async fn a_body_cut_short_changes_nothing(store: Store) {
    let home = tempfile::tempdir().unwrap();
    publish(&store, 1, None).await;
    take(&store, home.path()).await.unwrap();
    publish(&store, 2, Some(1)).await;
    let (cutting, _) = Faulty { cut: true, ..Faulty::over(&store) }.store();
    let error = take(&cutting, home.path()).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Truncated { .. }) && error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("blobs/"), "{error}");
    assert_eq!(in_use(home.path()), Some(1));
    assert_eq!(take(&store, home.path()).await.unwrap().release, 2);
}

async fn a_tampered_chunk_changes_nothing(store: Store) {
    let home = tempfile::tempdir().unwrap();
    publish(&store, 1, None).await;
    take(&store, home.path()).await.unwrap();
    let manifest = publish(&store, 2, Some(1)).await;
    let blob = large_chunks(&manifest)[1];
    let key = blob_key(&blob.digest);
    let good = store.get_blob(&blob, u64::MAX, &silent).await.unwrap().to_vec();
    let mut bad = good.clone();
    bad[4_000_000] ^= 0x80;
    overwrite(&store, &key, bad).await;
    let error = take(&store, home.path()).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Corrupt { .. }) && !error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains(key.as_ref()), "{error}");
    assert_eq!(in_use(home.path()), Some(1));
    assert_eq!(verify(home.path()).unwrap().damaged, []);
    store.backend().delete(&key).await.unwrap();
    assert_eq!(take(&store, home.path()).await.unwrap_err().kind(), ErrorKind::NotFound);
    overwrite(&store, &key, good).await;
    assert_eq!(take(&store, home.path()).await.unwrap().release, 2);
}

async fn a_tampered_manifest_changes_nothing(store: Store) {
    let home = tempfile::tempdir().unwrap();
    publish(&store, 1, None).await;
    take(&store, home.path()).await.unwrap();
    let manifest = publish(&store, 2, Some(1)).await;
    let key = Key::from("releases/2/manifest.json");
    let mut renamed = manifest.clone();
    renamed.colony = "another".into();
    let changed = [serde_json::to_vec(&renamed).unwrap(), b"{}".to_vec(), Vec::new()];
    for bytes in changed {
        overwrite(&store, &key, bytes).await;
        let error = take(&store, home.path()).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Refused && error.to_string().contains(key.as_ref()),
            "{error}"
        );
        assert_eq!(in_use(home.path()), Some(1));
    }
    // Chunks that are all right, listed as a file that they are not.
    let mut swapped = manifest.clone();
    swapped.files[2].digest = Digest::of(b"another");
    forge(&store, &swapped).await;
    let error = take(&store, home.path()).await.unwrap_err();
    assert!(error.to_string().contains(&swapped.files[2].path), "{error}");
    assert_eq!((in_use(home.path()), local_releases(home.path()).unwrap()), (Some(1), vec![1]));
}

async fn a_second_pull_is_turned_away(store: Store) {
    let home = tempfile::tempdir().unwrap();
    let dest = home.path();
    publish(&store, 1, None).await;
    let (waiting, faulty) =
        Faulty { gate: Some(Semaphore::new(0)), ..Faulty::over(&store) }.store();
    let path = dest.to_owned();
    let first = tokio::spawn(async move { take(&waiting, &path).await });
    while !dest.join(".partial/1/manifest.json").exists() {
        tokio::task::yield_now().await;
    }
    let error = take(&store, dest).await.unwrap_err();
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    assert!(matches!(error, ArtifactError::Locked { .. }) && error.is_retryable());
    faulty.gate.as_ref().unwrap().add_permits(1000);
    assert_eq!(first.await.unwrap().unwrap().outcome, Pulled::Fetched);
    assert_eq!(verify(dest).unwrap().damaged, []);
    assert_eq!(take(&store, dest).await.unwrap().outcome, Pulled::UpToDate);
}

async fn hostile_paths_are_refused(store: Store) {
    let content = b"evil".to_vec();
    let blob = store.put_blob(content.into(), &silent).await.unwrap();
    let good = publish(&store, 1, None).await;
    let home = tempfile::tempdir().unwrap();
    let dest = home.path().join("a/b/students");
    for path in [
        "../../../evil",
        "/tmp/uspx-evil",
        "x/../../../evil",
        "..\\evil",
        "C:\\evil",
        "manifest.json",
        "manifest.json/x",
    ] {
        let chunks = vec![ChunkEntry { bytes: blob.bytes, digest: blob.digest }];
        let entry =
            FileEntry { path: path.to_owned(), bytes: blob.bytes, digest: blob.digest, chunks };
        let mut hostile = good.clone();
        hostile.files = vec![entry];
        forge(&store, &hostile).await;
        let error = take(&store, &dest).await.unwrap_err();
        assert!(matches!(error, ArtifactError::Manifest { .. }), "{error:?}");
        assert!(
            error.to_string().contains(path) && error.to_string().contains("releases/1/"),
            "{error}"
        );
        assert_eq!(current(&dest).unwrap(), None);
    }
    assert!(!home.path().join("evil").exists() && !Path::new("/tmp/uspx-evil").exists());
}

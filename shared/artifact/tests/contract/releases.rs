//! Releases: one winner for a number, `latest` only forward, no manifest before its blobs.

use crate::backends::over_every_backend;
use crate::contracts;
use crate::faulty::Faulty;
use crate::samples::{Watch, draft, keys, large_chunks, publish, student};
use futures::future::join_all;
use libtest_mimic::Trial;
use object_store::path::Path as Key;
use std::fs;
use std::sync::atomic::AtomicI64;
use uspx_artifact::{ArtifactError, ErrorKind, Store, silent};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    let mut trials = over_every_backend(contracts![
        one_of_sixteen_wins,
        racing_publishers_all_get_a_number_in_the_end,
        invariant_6_latest_only_moves_forward,
        invariant_6_no_manifest_before_its_blobs,
        invariant_6_no_manifest_over_a_blob_that_reads_back_wrong,
        a_publisher_that_died_before_the_marker_is_finished
    ]);
    trials.extend(trials![
        an_unfit_folder_is_refused_with_the_file_named,
        a_folder_without_hard_links_is_refused_with_a_remedy
    ]);
    trials
}

/// A folder of one small file.
fn small(seed: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("report.json"), format!("{{\"seed\": {seed}}}")).unwrap();
    folder
}

async fn one_of_sixteen_wins(store: Store) {
    // On threads of their own, so that they really are at it at once.
    let race = (0..16).map(|seed| {
        let store = store.clone();
        tokio::spawn(async move { store.publish(small(seed).path(), &draft(None), &silent).await })
    });
    let results: Vec<_> = join_all(race).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = results.iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(store.latest().await.unwrap(), Some(1));
    assert_eq!(store.manifest(1).await.unwrap(), *winners[0]);
    for error in results.iter().filter_map(|r| r.as_ref().err()) {
        assert!(matches!(error, ArtifactError::Superseded { found: 1, .. }), "{error:?}");
        assert!(error.kind() == ErrorKind::Refused && !error.is_retryable());
    }
}

async fn racing_publishers_all_get_a_number_in_the_end(store: Store) {
    let race = (0..4).map(|seed| {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                let previous = store.latest().await.unwrap();
                match store.publish(small(seed).path(), &draft(previous), &silent).await {
                    Ok(manifest) => return manifest.release,
                    Err(ArtifactError::Superseded { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    let mut numbers: Vec<_> = join_all(race).await.into_iter().map(Result::unwrap).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(store.list().await.unwrap(), numbers);
    assert_eq!(store.manifest(4).await.unwrap().previous, Some(3));
}

async fn invariant_6_latest_only_moves_forward(store: Store) {
    assert_eq!(store.latest().await.unwrap(), None);
    let nothing = store.manifest(1).await.unwrap_err();
    assert!(matches!(nothing, ArtifactError::NoRelease { release: Some(1), .. }), "{nothing:?}");
    publish(&store, 1, None).await;
    publish(&store, 2, Some(1)).await;
    let folder = small(3);
    let late = store.publish(folder.path(), &draft(Some(1)), &silent).await.unwrap_err();
    assert!(matches!(late, ArtifactError::Superseded { expected: Some(1), found: 2 }), "{late:?}");
    let later = store.publish(folder.path(), &draft(None), &silent).await.unwrap_err();
    assert!(matches!(later, ArtifactError::Superseded { expected: None, found: 2 }), "{later:?}");
    assert!(store.publish(folder.path(), &draft(Some(9)), &silent).await.is_err());
    assert_eq!(store.list().await.unwrap(), [1, 2]);
    assert_eq!(
        keys(&store, "releases").await,
        ["releases/1/manifest.json", "releases/2/manifest.json"]
    );
}

async fn invariant_6_no_manifest_before_its_blobs(store: Store) {
    let folder = student(1);
    let (broken, _) = Faulty { writes_left: AtomicI64::new(2), ..Faulty::over(&store) }.store();
    let error = broken.publish(folder.path(), &draft(None), &silent).await.unwrap_err();
    assert!(error.to_string().contains("blobs/"), "{error}");
    assert_eq!(keys(&store, "releases").await, Vec::<String>::new());
    assert_eq!(keys(&store, "latest").await, Vec::<String>::new());
    store.publish(folder.path(), &draft(None), &silent).await.unwrap();
    let watch = Watch::default();
    store.publish(folder.path(), &draft(Some(1)), &|now| watch.see(now)).await.unwrap();
    let end = watch.last();
    assert!(
        end.done == end.total && end.resumed == end.total,
        "what is stored is not sent twice: {end:?}"
    );
}

async fn invariant_6_no_manifest_over_a_blob_that_reads_back_wrong(store: Store) {
    let (broken, _) = Faulty { flip: true, ..Faulty::over(&store) }.store();
    let error = broken.publish(student(1).path(), &draft(None), &silent).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Corrupt { .. }), "{error:?}");
    assert_eq!(keys(&store, "releases").await, Vec::<String>::new());
    // The damaged blobs do not stand in the way of the next try.
    publish(&store, 1, None).await;
    for blob in large_chunks(&store.manifest(1).await.unwrap()) {
        store.verify_blob(&blob).await.unwrap();
    }
}

async fn a_publisher_that_died_before_the_marker_is_finished(store: Store) {
    let (dying, _) =
        Faulty { prefix: "latest", writes_left: AtomicI64::new(0), ..Faulty::over(&store) }.store();
    dying.publish(small(1).path(), &draft(None), &silent).await.unwrap_err();
    assert_eq!(store.latest().await.unwrap(), None, "no marker, so nobody sees it");
    let next = store.publish(small(2).path(), &draft(None), &silent).await.unwrap_err();
    assert!(matches!(next, ArtifactError::Superseded { expected: None, found: 1 }), "{next:?}");
    assert_eq!(store.latest().await.unwrap(), Some(1));
    assert_eq!(store.publish(small(2).path(), &draft(Some(1)), &silent).await.unwrap().release, 2);
    assert_eq!(store.settle().await.unwrap(), Some(2));
}

#[tokio::main(flavor = "current_thread")]
async fn an_unfit_folder_is_refused_with_the_file_named() {
    let store = Store::memory();
    let folder = tempfile::tempdir().unwrap();
    let refused = async |what: &str| {
        let error = store.publish(folder.path(), &draft(None), &silent).await.unwrap_err();
        assert!(error.kind() == ErrorKind::BadInput && error.to_string().contains(what), "{error}");
    };
    refused("no file").await;
    fs::write(folder.path().join("manifest.json"), "of an older release").unwrap();
    refused("no file").await;
    fs::write(folder.path().join("back\\slash"), "x").unwrap();
    refused("back\\slash").await;
    fs::remove_file(folder.path().join("back\\slash")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).unwrap();
    refused("link").await;
    assert_eq!(store.backend().to_string(), "InMemory");
    assert_eq!(keys(&store, Key::default().as_ref()).await, Vec::<String>::new());
}

/// exFAT calls a hard link forbidden, some shares call it unsupported; ordinary writing works.
#[tokio::main(flavor = "current_thread")]
async fn a_folder_without_hard_links_is_refused_with_a_remedy() {
    for errno in [1, 95] {
        let folder = tempfile::tempdir().unwrap();
        let inner = Store::folder(folder.path()).unwrap();
        let (store, _) = Faulty { links: Some(errno), ..Faulty::over(&inner) }.store();
        let error = store.publish(small(1).path(), &draft(None), &silent).await.unwrap_err();
        assert!(matches!(error, ArtifactError::NoHardLinks { .. }), "{error:?}");
        assert!(error.kind() == ErrorKind::Refused && !error.is_retryable());
        assert!(error.to_string().contains("exFAT"), "{error}");
        assert_eq!(keys(&inner, "releases").await, Vec::<String>::new());
        // Where nothing can be written at all, links are not to blame.
        let (shut, _) = Faulty { links: Some(errno), prefix: "releases", ..Faulty::over(&inner) }
            .store_without_writes();
        let error = shut.publish(small(1).path(), &draft(None), &silent).await.unwrap_err();
        assert!(!matches!(error, ArtifactError::NoHardLinks { .. }), "{error:?}");
    }
}

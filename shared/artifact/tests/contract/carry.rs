//! One store's content brought into another.

use crate::backends::over_every_backend;
use crate::contracts;
use crate::samples::{noise, publish};
use bytes::Bytes;
use libtest_mimic::Trial;
use std::fs;
use uspx_artifact::{ErrorKind, PullOptions, Store, pull, silent};

pub fn trials() -> Vec<Trial> {
    over_every_backend(contracts![
        everything_is_brought_and_a_second_time_nothing_changes,
        another_s_release_is_not_mixed_with,
    ])
}

async fn everything_is_brought_and_a_second_time_nothing_changes(store: Store) {
    let (from, scratch) = (Store::memory(), tempfile::tempdir().unwrap());
    let large = Bytes::from(noise(9, 9 << 20));
    let blob = from.put_blob(large.clone(), &silent).await.unwrap();
    publish(&from, 1, None).await;
    let second = publish(&from, 2, Some(1)).await;
    for _ in 0..2 {
        store.bring(&from, scratch.path(), &silent).await.unwrap();
        assert_eq!(store.list().await.unwrap(), [1, 2]);
        assert_eq!(store.manifest(2).await.unwrap(), second);
        assert_eq!(store.get_blob(&blob, blob.bytes, &silent).await.unwrap(), large);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing stays behind");
    }
    let laptop = tempfile::tempdir().unwrap();
    let pulled = pull(&store, laptop.path(), &PullOptions::default(), &silent).await.unwrap();
    assert_eq!(pulled.release, 2);
    // What came after the move is published here, and what was before stays.
    publish(&store, 3, Some(2)).await;
    store.bring(&from, scratch.path(), &silent).await.unwrap();
    assert_eq!(store.list().await.unwrap(), [1, 2, 3]);
}

async fn another_s_release_is_not_mixed_with(store: Store) {
    let (from, scratch) = (Store::memory(), tempfile::tempdir().unwrap());
    publish(&from, 1, None).await;
    publish(&from, 2, Some(1)).await;
    publish(&store, 7, None).await;
    let before = store.stored_blobs().await.unwrap().len();
    let error = store.bring(&from, scratch.path(), &silent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("releases/1/manifest.json"), "{error}");
    assert_eq!(store.stored_blobs().await.unwrap().len(), before, "nothing was brought");
    assert_eq!(store.list().await.unwrap(), [1]);
}

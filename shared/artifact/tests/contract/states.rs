//! States of jobs under way: the newest is found by its task, verified, and gone when the task is done.

use crate::backends::over_every_backend;
use crate::contracts;
use crate::samples::overwrite;
use libtest_mimic::Trial;
use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use uspx_artifact::{ErrorKind, Store, silent};
use uspx_domain::{TaskId, WorkerId};

pub fn trials() -> Vec<Trial> {
    over_every_backend(contracts![
        the_newest_state_of_a_task_is_found_and_the_one_before_is_gone,
        one_s_own_state_is_not_fetched,
        a_dropped_state_leaves_nothing_and_others_alone,
        states_that_make_no_sense_are_none,
        old_states_are_dropped_and_young_ones_stay,
    ])
}

const MOST: u64 = 1 << 30;

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

fn task(n: u8) -> TaskId {
    TaskId::derived(&[n])
}

async fn put(store: &Store, task: TaskId, name: &str, content: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::write(&path, content).unwrap();
    store.put_state(task, (&worker(name), &path), &silent).await.unwrap();
}

/// What a worker without a state of its own gets.
async fn got(store: &Store, task: TaskId, own: Option<&str>) -> Option<Vec<u8>> {
    let (dir, own) = (TempDir::new().unwrap(), own.map(worker));
    let path = dir.path().join("state");
    let there = store.get_state(task, (&path, own.as_ref(), MOST), &silent).await.unwrap();
    assert_eq!(there, path.exists());
    there.then(|| std::fs::read(path).unwrap())
}

async fn blobs(store: &Store) -> usize {
    store.stored_blobs().await.unwrap().len()
}

async fn the_newest_state_of_a_task_is_found_and_the_one_before_is_gone(store: Store) {
    assert_eq!(got(&store, task(1), None).await, None);
    put(&store, task(1), "ada", b"a tenth of it").await;
    put(&store, task(2), "ada", b"another task's").await;
    put(&store, task(1), "ada", b"half of it").await;
    // Said again, it stays.
    put(&store, task(1), "bob", b"half of it").await;
    assert_eq!(got(&store, task(1), None).await.unwrap(), b"half of it");
    assert_eq!(store.state(task(1)).await.unwrap().unwrap().worker, worker("bob"));
    assert_eq!(blobs(&store).await, 2);
    // Longer than one part of an upload.
    let long = vec![7; (9 << 20) + 1];
    put(&store, task(1), "bob", &long).await;
    assert!(got(&store, task(1), None).await.unwrap() == long);
}

async fn one_s_own_state_is_not_fetched(store: Store) {
    put(&store, task(1), "ada", b"half of it").await;
    assert_eq!(got(&store, task(1), Some("ada")).await, None);
    assert!(got(&store, task(1), Some("bob")).await.is_some());
}

async fn a_dropped_state_leaves_nothing_and_others_alone(store: Store) {
    store.drop_state(task(1)).await.unwrap();
    put(&store, task(1), "ada", b"done").await;
    put(&store, task(2), "ada", b"another task's").await;
    store.drop_state(task(1)).await.unwrap();
    assert_eq!(got(&store, task(1), None).await, None);
    assert!(got(&store, task(2), None).await.is_some());
    assert_eq!(blobs(&store).await, 1);
}

async fn states_that_make_no_sense_are_none(store: Store) {
    put(&store, task(1), "ada", b"half of it").await;
    let key = Key::from(format!("states/{}", task(1)));
    for broken in ["", "{}", "not JSON", &"x".repeat(1 << 16)] {
        overwrite(&store, &key, broken.into()).await;
        assert_eq!(got(&store, task(1), None).await, None);
    }
    put(&store, task(1), "ada", b"more of it").await;
    let blob = store.state(task(1)).await.unwrap().unwrap().blob;
    overwrite(&store, &crate::samples::blob_key(&blob.digest), b"less of it".into()).await;
    assert_eq!(got(&store, task(1), None).await, None);
    let dir = tempfile::tempdir().unwrap();
    let how = (dir.path(), None, blob.bytes - 1);
    let error = store.get_state(task(1), how, &silent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}

async fn old_states_are_dropped_and_young_ones_stay(store: Store) {
    put(&store, task(1), "ada", b"half of it").await;
    overwrite(&store, &Key::from("states/not-ours"), b"x".to_vec()).await;
    let hour = Duration::from_secs(3600);
    store.drop_states_before(SystemTime::now() - hour).await.unwrap();
    assert!(got(&store, task(1), None).await.is_some());
    store.drop_states_before(SystemTime::now() + hour).await.unwrap();
    assert_eq!((got(&store, task(1), None).await, blobs(&store).await), (None, 0));
    assert!(store.backend().head(&Key::from("states/not-ours")).await.is_ok());
}

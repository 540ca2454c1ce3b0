//! Rolling back: whatever breaks off, the folder has one of the two releases in use, whole; and what a
//! crash leaves between the note and the switch misleads no later pull.

use crate::faulty::Faulty;
use crate::samples::publish;
use libtest_mimic::Trial;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicI64;
use uspx_artifact::{
    ArtifactError, PullOptions, Pulled, Store, current, local_releases, pull, rollback,
    rollback_here, rolled_back_from, silent, verify,
};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_rollback_may_fail_at_any_read,
        a_crash_before_the_switch_leaves_a_pull_as_it_was,
        a_release_under_anothers_number_is_not_gone_back_to,
        what_an_interrupted_pull_left_outlasts_a_rollback,
    ]
}

/// A store with so many releases, all of them pulled.
async fn pulled(newest: u64, dest: &Path) -> Store {
    let store = Store::memory();
    for release in 1..=newest {
        publish(&store, release, release.checked_sub(1).filter(|n| *n > 0)).await;
        pull(&store, dest, &PullOptions::default(), &silent).await.unwrap();
    }
    store
}

fn in_use(dest: &Path) -> u64 {
    assert_eq!(verify(dest).unwrap().damaged, []);
    current(dest).unwrap().unwrap().manifest.release
}

#[tokio::main(flavor = "current_thread")]
async fn a_rollback_may_fail_at_any_read() {
    for step in 0.. {
        let home = tempfile::tempdir().unwrap();
        let dest = home.path();
        let store = pulled(2, dest).await;
        fs::remove_dir_all(dest.join("releases/1")).unwrap();
        let error = rollback_here(dest, None).unwrap_err();
        assert!(matches!(error, ArtifactError::NotWhole { release: 1, .. }), "{error:?}");
        let whole = Faulty { prefix: "", ..Faulty::over(&store) };
        let (failing, _) = Faulty { reads_left: AtomicI64::new(step), ..whole }.store();
        let done = rollback(&failing, dest, Some(1), &silent).await;

        let (number, left) = if done.is_ok() { (1, Some(2)) } else { (2, None) };
        assert_eq!((in_use(dest), rolled_back_from(dest)), (number, left), "{step}: {done:?}");
        assert!(local_releases(dest).unwrap().contains(&2), "nothing is removed");
        if done.is_ok() {
            assert!(step > 3, "{step} steps cannot be all");
            return;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn a_crash_before_the_switch_leaves_a_pull_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let dest = home.path();
    let store = pulled(3, dest).await;
    let note = dest.join("rolled-back-from");
    fs::write(&note, "3\n").unwrap();
    let again = pull(&store, dest, &PullOptions::default(), &silent).await.unwrap();
    assert_eq!((again.outcome, again.rolled_back_from), (Pulled::UpToDate, None));

    // Rolled back once, a second time as far as the note: the first one still holds.
    rollback_here(dest, None).unwrap();
    assert_eq!(fs::read_to_string(&note).unwrap(), "3\n");
    let stays = pull(&store, dest, &PullOptions::default(), &silent).await.unwrap();
    assert_eq!((stays.release, stays.rolled_back_from), (2, Some(3)));

    publish(&store, 4, Some(3)).await;
    pull(&store, dest, &PullOptions::default(), &silent).await.unwrap();
    assert!(in_use(dest) == 4 && !note.exists(), "a newer one ends it");
}

#[tokio::main(flavor = "current_thread")]
async fn a_release_under_anothers_number_is_not_gone_back_to() {
    let home = tempfile::tempdir().unwrap();
    let dest = home.path();
    pulled(3, dest).await;
    fs::remove_dir_all(dest.join("releases/1")).unwrap();
    fs::rename(dest.join("releases/2"), dest.join("releases/1")).unwrap();
    let error = rollback_here(dest, Some(1)).unwrap_err();
    assert!(error.to_string().contains("its manifest is of release 2"), "{error}");
    assert_eq!(in_use(dest), 3);
}

#[tokio::main(flavor = "current_thread")]
async fn what_an_interrupted_pull_left_outlasts_a_rollback() {
    let home = tempfile::tempdir().unwrap();
    let dest = home.path();
    let store = pulled(2, dest).await;
    publish(&store, 3, Some(2)).await;
    let (failing, _) = Faulty { reads_left: AtomicI64::new(1), ..Faulty::over(&store) }.store();
    let options = PullOptions { at_once: 1, ..PullOptions::default() };
    pull(&failing, dest, &options, &silent).await.unwrap_err();
    rollback_here(dest, None).unwrap();
    assert!(dest.join(".partial/3").exists());
    let third = pull(&store, dest, &PullOptions::default(), &silent).await.unwrap();
    assert!(third.release == 3 && third.resumed > 0, "{third:?}");
}

//! What concerns the folder on this machine only: damage and repair, clearing out, going back,
//! other colonies, being dropped.

use crate::faulty::Faulty;
use crate::samples::{draft, large_chunks, publish, student};
use libtest_mimic::Trial;
use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::Semaphore;
use uspx_artifact::{
    ArtifactError, CHUNK_BYTES, Checked, Draft, ErrorKind, PullOptions, Pulled, Store, current,
    local_releases, prune, pull, silent, verify,
};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        damage_on_this_machine_is_found_and_mended,
        old_releases_are_cleared_out_but_never_the_one_in_use,
        a_store_that_went_back_is_not_followed,
        another_colonys_release_is_not_mixed_in,
        a_dropped_pull_frees_its_lock_and_is_resumed,
        rubbish_in_the_partial_folder_does_no_harm,
        what_was_not_read_is_not_called_verified,
        links_in_the_partial_folder_are_not_followed,
        transfers_can_be_spawned
    ]
}

const PLAIN: PullOptions = PullOptions { release: None, newest: false, repair: false, at_once: 4 };
const REPAIR: PullOptions = PullOptions { repair: true, ..PLAIN };

#[tokio::main(flavor = "current_thread")]
async fn damage_on_this_machine_is_found_and_mended() {
    let (store, home) = (Store::memory(), tempfile::tempdir().unwrap());
    let dest = home.path();
    assert_eq!(verify(dest).unwrap_err().kind(), ErrorKind::NotFound);
    publish(&store, 1, None).await;
    let report = pull(&store, dest, &PLAIN, &silent).await.unwrap();
    assert_eq!(verify(dest).unwrap().damaged, []);

    let file = report.folder.join("gptq/model.safetensors");
    let mut content = fs::read(&file).unwrap();
    content[CHUNK_BYTES + 5] ^= 1;
    fs::write(&file, &content).unwrap();
    let damaged = verify(dest).unwrap().damaged;
    assert_eq!(
        damaged.iter().map(|d| d.path.as_str()).collect::<Vec<_>>(),
        ["gptq/model.safetensors"]
    );
    let mended = pull(&store, dest, &PLAIN, &silent).await.unwrap();
    assert_eq!(
        (mended.outcome, mended.fetched),
        (Pulled::Fetched, CHUNK_BYTES as u64),
        "one chunk was damaged"
    );
    assert_eq!(verify(dest).unwrap().damaged, []);

    fs::remove_file(report.folder.join("README.md")).unwrap();
    assert_eq!(pull(&store, dest, &PLAIN, &silent).await.unwrap().outcome, Pulled::Fetched);
    assert_eq!(verify(dest).unwrap().damaged, []);
    assert_eq!(pull(&store, dest, &REPAIR, &silent).await.unwrap().outcome, Pulled::UpToDate);
}

#[tokio::main(flavor = "current_thread")]
async fn old_releases_are_cleared_out_but_never_the_one_in_use() {
    let (store, home) = (Store::memory(), tempfile::tempdir().unwrap());
    for release in 1..=4 {
        publish(&store, release, (release > 1).then(|| release - 1)).await;
        pull(&store, home.path(), &PLAIN, &silent).await.unwrap();
    }
    pull(&store, home.path(), &PullOptions { release: Some(2), ..PLAIN }, &silent).await.unwrap();
    assert_eq!(prune(home.path(), 1).unwrap(), [3, 1]);
    assert_eq!(local_releases(home.path()).unwrap(), [2, 4]);
    assert_eq!(current(home.path()).unwrap().unwrap().manifest.release, 2);
}

#[tokio::main(flavor = "current_thread")]
async fn a_store_that_went_back_is_not_followed() {
    let (store, home) = (Store::memory(), tempfile::tempdir().unwrap());
    publish(&store, 1, None).await;
    publish(&store, 2, Some(1)).await;
    pull(&store, home.path(), &PLAIN, &silent).await.unwrap();
    store.backend().delete(&Key::from("latest/2")).await.unwrap();
    let error = pull(&store, home.path(), &PLAIN, &silent).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Backwards { latest: 1, current: 2 }), "{error:?}");
    assert_eq!(current(home.path()).unwrap().unwrap().manifest.release, 2);
}

#[tokio::main(flavor = "current_thread")]
async fn another_colonys_release_is_not_mixed_in() {
    let (ours, theirs, home) = (Store::memory(), Store::memory(), tempfile::tempdir().unwrap());
    publish(&ours, 1, None).await;
    let other = Draft { colony: "theirs".into(), ..draft(None) };
    theirs.publish(student(9).path(), &other, &silent).await.unwrap();
    pull(&theirs, home.path(), &PLAIN, &silent).await.unwrap();
    let error = pull(&ours, home.path(), &PLAIN, &silent).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("theirs"), "{error}");
    assert_eq!(current(home.path()).unwrap().unwrap().manifest.colony, "theirs");
}

#[tokio::main(flavor = "current_thread")]
async fn a_dropped_pull_frees_its_lock_and_is_resumed() {
    let (store, home) = (Store::memory(), tempfile::tempdir().unwrap());
    let manifest = publish(&store, 1, None).await;
    let (waiting, _) = Faulty { gate: Some(Semaphore::new(2)), ..Faulty::over(&store) }.store();
    let stuck =
        tokio::time::timeout(Duration::from_secs(2), pull(&waiting, home.path(), &PLAIN, &silent))
            .await;
    assert!(stuck.is_err());
    let report = pull(&store, home.path(), &PLAIN, &silent).await.unwrap();
    assert!(report.resumed > 0 && report.resumed < report.bytes, "{report:?}");
    assert_eq!(verify(home.path()).unwrap().damaged, []);
    assert_eq!(large_chunks(&manifest).len(), 3);
}

#[tokio::main(flavor = "current_thread")]
async fn rubbish_in_the_partial_folder_does_no_harm() {
    let (store, home) = (Store::memory(), tempfile::tempdir().unwrap());
    publish(&store, 1, None).await;
    let (broken, faulty) = Faulty::over(&store).store();
    faulty.reads_left.store(2, std::sync::atomic::Ordering::SeqCst);
    pull(&broken, home.path(), &PullOptions { at_once: 1, ..PLAIN }, &silent).await.unwrap_err();
    let partial = home.path().join(".partial/1/gptq/model.safetensors");
    fs::write(&partial, vec![7; 3 * CHUNK_BYTES]).unwrap();
    pull(&store, home.path(), &PLAIN, &silent).await.unwrap();
    assert_eq!(verify(home.path()).unwrap().damaged, []);
}

#[tokio::main(flavor = "current_thread")]
async fn transfers_can_be_spawned() {
    // Futures that are not Send could not be: this would not compile.
    let (store, home) = (Store::memory(), tempfile::tempdir().unwrap());
    let dest = home.path().to_owned();
    let job = tokio::spawn(async move {
        let manifest = store.publish(student(1).path(), &draft(None), &silent).await.unwrap();
        let file = dest.join("file");
        store.get_file(&large_chunks(&manifest)[0], &file, u64::MAX, &silent).await.unwrap();
        store.put_file(&file, &silent).await.unwrap();
        pull(&store, &dest, &PLAIN, &silent).await.unwrap().outcome
    });
    assert_eq!(job.await.unwrap(), Pulled::Fetched);
}

#[tokio::main(flavor = "current_thread")]
async fn what_was_not_read_is_not_called_verified() {
    let (store, home) = (Store::memory(), tempfile::tempdir().unwrap());
    let dest = home.path();
    publish(&store, 1, None).await;
    let take = async |options: &PullOptions| {
        let report = pull(&store, dest, options, &silent).await.unwrap();
        (report.outcome, report.checked)
    };
    assert_eq!(take(&PLAIN).await, (Pulled::Fetched, Checked::Hashed));
    assert_eq!(take(&PLAIN).await, (Pulled::UpToDate, Checked::Unchanged));
    assert_eq!(take(&REPAIR).await, (Pulled::UpToDate, Checked::Hashed));
    // Touched, or copied from elsewhere: read once more, and not again.
    let file = dest.join("current/gptq/model.safetensors");
    fs::File::options().write(true).open(&file).unwrap().set_modified(UNIX_EPOCH).unwrap();
    assert_eq!(take(&PLAIN).await, (Pulled::UpToDate, Checked::Hashed));
    assert_eq!(take(&PLAIN).await, (Pulled::UpToDate, Checked::Unchanged));
    fs::remove_file(dest.join("current/.verified.json")).unwrap();
    assert_eq!(take(&PLAIN).await, (Pulled::UpToDate, Checked::Hashed));
    // A byte that changes behind the file system's back: nobody says that it was verified.
    let mut content = fs::read(&file).unwrap();
    content[5] ^= 1;
    fs::write(&file, &content).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(UNIX_EPOCH).unwrap();
    assert_eq!(take(&PLAIN).await, (Pulled::UpToDate, Checked::Unchanged));
    assert_eq!(verify(dest).unwrap().damaged.len(), 1);
    assert_eq!(take(&REPAIR).await, (Pulled::Fetched, Checked::Hashed));
    assert_eq!(verify(dest).unwrap().damaged, []);
    // The stamp is no file of a release.
    let current = current(dest).unwrap().unwrap();
    let again = Store::memory().publish(&current.folder, &draft(None), &silent).await.unwrap();
    assert_eq!(again.files, current.manifest.files);
}

#[tokio::main(flavor = "current_thread")]
async fn links_in_the_partial_folder_are_not_followed() {
    let store = Store::memory();
    publish(&store, 1, None).await;
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("model.safetensors");
    for link in ["gptq/model.safetensors", "gptq", "manifest.json", "", ".."] {
        let home = tempfile::tempdir().unwrap();
        let (broken, faulty) = Faulty::over(&store).store();
        faulty.reads_left.store(0, std::sync::atomic::Ordering::SeqCst);
        pull(&broken, home.path(), &PLAIN, &silent).await.unwrap_err();
        fs::write(&victim, "of somebody else").unwrap();
        let partial = home.path().join(".partial");
        let place = if link == ".." { partial } else { partial.join("1").join(link) };
        let place = place.components().collect::<std::path::PathBuf>();
        let is_file = place.is_file();
        if is_file {
            fs::remove_file(&place).unwrap()
        } else {
            fs::remove_dir_all(&place).unwrap()
        }
        symlink(if is_file { &victim } else { outside.path() }, &place).unwrap();
        let error = pull(&store, home.path(), &PLAIN, &silent).await.unwrap_err();
        assert!(matches!(&error, ArtifactError::Link(path) if *path == place), "{link}: {error:?}");
        assert!(error.to_string().contains(&place.display().to_string()), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "of somebody else");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{link}");
        fs::remove_file(&place).unwrap();
        assert_eq!(pull(&store, home.path(), &PLAIN, &silent).await.unwrap().release, 1);
    }
}

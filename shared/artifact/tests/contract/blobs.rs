//! Blobs: what comes out is what went in, or an error that names the key.

use crate::backends::over_every_backend;
use crate::contracts;
use crate::faulty::Faulty;
use crate::samples::{Watch, blob_key, keys, noise, overwrite};
use libtest_mimic::Trial;
use std::sync::atomic::Ordering;
use uspx_artifact::{ArtifactError, ErrorKind, Store, silent};
use uspx_domain::{BlobRef, Digest};

pub fn trials() -> Vec<Trial> {
    over_every_backend(contracts![
        bytes_come_back,
        files_come_back,
        a_tampered_blob_is_refused,
        a_reference_beyond_the_bound_is_refused_unasked,
        more_than_was_asked_for_is_given_up,
        every_part_that_moves_is_told
    ])
}

async fn bytes_come_back(store: Store) {
    // Nothing; one byte; a single request; several parts, the last one short.
    for (seed, bytes) in [0, 1, 5 << 20, (17 << 20) + 3].into_iter().enumerate() {
        let content = noise(seed as u64, bytes);
        let blob = store.put_blob(content.clone().into(), &silent).await.unwrap();
        assert_eq!(blob, BlobRef { digest: Digest::of(&content), bytes: bytes as u64 });
        assert_eq!(
            store.put_blob(content.clone().into(), &silent).await.unwrap(),
            blob,
            "a second time"
        );
        assert!(store.has_blob(&blob).await.unwrap());
        assert!(
            store.get_blob(&blob, u64::MAX, &silent).await.unwrap() == content,
            "{bytes} bytes"
        );
        let middle = store.get_blob_range(&blob, blob.bytes / 3..blob.bytes / 2).await.unwrap();
        assert!(middle == content[bytes / 3..bytes / 2], "range of {bytes} bytes");
        assert!(store.get_blob_range(&blob, 0..blob.bytes + 1).await.is_err());
    }
    assert_eq!(keys(&store, "blobs").await.len(), 4);
    let gone = BlobRef::to(b"");
    store.delete_blob(&gone).await.unwrap();
    store.delete_blob(&gone).await.unwrap();
    let error = store.get_blob(&gone, u64::MAX, &silent).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::NotFound && error.to_string().contains(&gone.digest.hex()),
        "{error}"
    );
}

async fn files_come_back(store: Store) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("new/to"));
    for bytes in [0, 100, (9 << 20) + 1] {
        let content = noise(7, bytes);
        std::fs::write(&from, &content).unwrap();
        let blob = store.put_file(&from, &silent).await.unwrap();
        assert_eq!(blob, BlobRef::to(&content));
        store.get_file(&blob, &to, u64::MAX, &silent).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == content);
    }
    let before = std::fs::read(&to).unwrap();
    let missing = BlobRef::to(b"never stored");
    assert_eq!(
        store.get_file(&missing, &to, u64::MAX, &silent).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(std::fs::read(&to).unwrap() == before, "a file is replaced only by a verified one");
    assert_eq!(
        std::fs::read_dir(to.parent().unwrap()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

async fn a_tampered_blob_is_refused(store: Store) {
    let content = noise(1, 100_000);
    let blob = store.put_blob(content.clone().into(), &silent).await.unwrap();
    let key = blob_key(&blob.digest);
    let mut flipped = content.clone();
    flipped[50_000] ^= 1;
    let longer = [content.as_slice(), b"!"].concat();
    for (what, bad) in [
        ("flipped", flipped),
        ("longer", longer),
        ("shorter", content[1..].to_vec()),
        ("empty", vec![]),
    ] {
        overwrite(&store, &key, bad).await;
        let error = store.get_blob(&blob, u64::MAX, &silent).await.unwrap_err();
        assert!(matches!(error, ArtifactError::Corrupt { .. }), "{what}: {error:?}");
        assert!(
            error.to_string().contains(key.as_ref()) && !error.is_retryable(),
            "{what}: {error}"
        );
        assert!(store.verify_blob(&blob).await.is_err(), "{what}");
        let file = tempfile::tempdir().unwrap();
        assert!(
            store.get_file(&blob, &file.path().join("x"), u64::MAX, &silent).await.is_err(),
            "{what}"
        );
        assert_eq!(std::fs::read_dir(file.path()).unwrap().count(), 0, "{what}");
        // Whoever stores it again mends it.
        store.put_blob(content.clone().into(), &silent).await.unwrap();
        assert!(store.get_blob(&blob, u64::MAX, &silent).await.unwrap() == content, "{what}");
    }
}

async fn a_reference_beyond_the_bound_is_refused_unasked(store: Store) {
    let (counting, faulty) = Faulty { prefix: "", ..Faulty::over(&store) }.store();
    let small = counting.put_blob(noise(2, 1000).into(), &silent).await.unwrap();
    let huge = BlobRef { bytes: 30 << 30, ..small };
    let before = faulty.reads.load(Ordering::SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x");
    for (blob, most) in [(huge, 1 << 20), (small, 999), (small, 0)] {
        let errors = [
            counting.get_blob(&blob, most, &silent).await.unwrap_err(),
            counting.get_file(&blob, &file, most, &silent).await.unwrap_err(),
        ];
        for error in errors {
            let told = matches!(&error, ArtifactError::TooLarge { bytes, most: m, .. } if (*bytes, *m) == (blob.bytes, most));
            assert!(told && error.to_string().contains(&blob.digest.hex()), "{error:?}");
            assert!(error.kind() == ErrorKind::Refused && !error.is_retryable());
        }
    }
    assert_eq!(faulty.reads.load(Ordering::SeqCst), before, "nothing was asked for");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(counting.get_blob(&small, 1000, &silent).await.unwrap().len(), 1000);
}

/// A store that answers without end would fill the memory, whatever the reference says.
async fn more_than_was_asked_for_is_given_up(store: Store) {
    let blob = store.put_blob(noise(3, 1000).into(), &silent).await.unwrap();
    let (endless, _) = Faulty { endless: true, ..Faulty::over(&store) }.store();
    let error = endless.get_blob(&blob, 1000, &silent).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Corrupt { .. }), "{error:?}");
}

async fn every_part_that_moves_is_told(store: Store) {
    let content = noise(4, (17 << 20) + 3);
    let bytes = content.len() as u64;
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::write(&from, &content).unwrap();
    let ends = |watch: &Watch, total: u64, resumed: u64, parts: usize| {
        let end = watch.last();
        assert_eq!((end.total, end.done, end.resumed), (total, total, resumed));
        assert!(watch.steps() >= parts, "{} steps", watch.steps());
    };
    // Sent and read back, in three parts each.
    let watch = Watch::default();
    let blob = store.put_blob(content.into(), &|now| watch.see(now)).await.unwrap();
    ends(&watch, 2 * bytes, 0, 6);
    let watch = Watch::default();
    store.get_blob(&blob, bytes, &|now| watch.see(now)).await.unwrap();
    ends(&watch, bytes, 0, 3);
    let watch = Watch::default();
    store.get_file(&blob, &to, bytes, &|now| watch.see(now)).await.unwrap();
    ends(&watch, bytes, 0, 3);
    // There already: read through, not sent.
    let watch = Watch::default();
    store.put_file(&to, &|now| watch.see(now)).await.unwrap();
    ends(&watch, 2 * bytes, bytes, 4);
    let watch = Watch::default();
    store.get_file(&blob, &to, bytes, &|now| watch.see(now)).await.unwrap();
    ends(&watch, bytes, bytes, 1);
    store.delete_blob(&blob).await.unwrap();
    let watch = Watch::default();
    store.put_file(&from, &|now| watch.see(now)).await.unwrap();
    ends(&watch, 2 * bytes, 0, 6);
}

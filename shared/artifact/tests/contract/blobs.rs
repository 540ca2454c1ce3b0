//! Blobs: what comes out is what went in, or an error that names the key.

use crate::backends::over_every_backend;
use crate::contracts;
use crate::samples::{blob_key, keys, noise, overwrite};
use libtest_mimic::Trial;
use uspx_artifact::{ArtifactError, ErrorKind, Store};
use uspx_domain::{BlobRef, Digest};

pub fn trials() -> Vec<Trial> {
    over_every_backend(contracts![bytes_come_back, files_come_back, a_tampered_blob_is_refused])
}

async fn bytes_come_back(store: Store) {
    // Nothing; one byte; a single request; several parts, the last one short.
    for (seed, bytes) in [0, 1, 5 << 20, (17 << 20) + 3].into_iter().enumerate() {
        let content = noise(seed as u64, bytes);
        let blob = store.put_blob(content.clone().into()).await.unwrap();
        assert_eq!(blob, BlobRef { digest: Digest::of(&content), bytes: bytes as u64 });
        assert_eq!(store.put_blob(content.clone().into()).await.unwrap(), blob, "a second time");
        assert!(store.has_blob(&blob).await.unwrap());
        assert!(store.get_blob(&blob).await.unwrap() == content, "{bytes} bytes");
        let middle = store.get_blob_range(&blob, blob.bytes / 3..blob.bytes / 2).await.unwrap();
        assert!(middle == content[bytes / 3..bytes / 2], "range of {bytes} bytes");
        assert!(store.get_blob_range(&blob, 0..blob.bytes + 1).await.is_err());
    }
    assert_eq!(keys(&store, "blobs").await.len(), 4);
    let gone = BlobRef::to(b"");
    store.delete_blob(&gone).await.unwrap();
    store.delete_blob(&gone).await.unwrap();
    let error = store.get_blob(&gone).await.unwrap_err();
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
        let blob = store.put_file(&from).await.unwrap();
        assert_eq!(blob, BlobRef::to(&content));
        store.get_file(&blob, &to).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == content);
    }
    let before = std::fs::read(&to).unwrap();
    let missing = BlobRef::to(b"never stored");
    assert_eq!(store.get_file(&missing, &to).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(std::fs::read(&to).unwrap() == before, "a file is replaced only by a verified one");
    assert_eq!(
        std::fs::read_dir(to.parent().unwrap()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

async fn a_tampered_blob_is_refused(store: Store) {
    let content = noise(1, 100_000);
    let blob = store.put_blob(content.clone().into()).await.unwrap();
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
        let error = store.get_blob(&blob).await.unwrap_err();
        assert!(matches!(error, ArtifactError::Corrupt { .. }), "{what}: {error:?}");
        assert!(
            error.to_string().contains(key.as_ref()) && !error.is_retryable(),
            "{what}: {error}"
        );
        assert!(store.verify_blob(&blob).await.is_err(), "{what}");
        let file = tempfile::tempdir().unwrap();
        assert!(store.get_file(&blob, &file.path().join("x")).await.is_err(), "{what}");
        assert_eq!(std::fs::read_dir(file.path()).unwrap().count(), 0, "{what}");
        // Whoever stores it again mends it.
        store.put_blob(content.clone().into()).await.unwrap();
        assert!(store.get_blob(&blob).await.unwrap() == content, "{what}");
    }
}

//! What collecting unreferenced blobs needs: the list of blobs, what releases name, and a deletion
//! that leaves alone what was written again.

use crate::backends::over_every_backend;
use crate::contracts;
use crate::samples::{blob_key, forge, overwrite, publish};
use bytes::Bytes;
use libtest_mimic::Trial;
use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};
use uspx_artifact::{ErrorKind, Store, silent};
use uspx_domain::Digest;

pub fn trials() -> Vec<Trial> {
    over_every_backend(contracts![
        blobs_are_listed_with_their_age_and_deleted_if_unchanged,
        every_chunk_of_every_release_is_named_also_of_one_not_yet_marked,
        a_manifest_that_cannot_be_read_is_an_error,
    ])
}

async fn blobs_are_listed_with_their_age_and_deleted_if_unchanged(store: Store) {
    assert_eq!(store.stored_blobs().await.unwrap(), []);
    let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"number two"));
    let (one, two) =
        (store.put_blob(one, &silent).await.unwrap(), store.put_blob(two, &silent).await.unwrap());
    overwrite(&store, &Key::from("blobs/ab/not-ours"), b"x".to_vec()).await;
    let mut listed = store.stored_blobs().await.unwrap();
    listed.sort_by_key(|stored| stored.blob.bytes);
    assert_eq!(listed.iter().map(|stored| stored.blob).collect::<Vec<_>>(), [one, two]);
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now();
    assert!(listed.iter().all(|l| l.modified > now - hour && l.modified < now + hour));
    overwrite(&store, &blob_key(&two.digest), b"written again".to_vec()).await;
    let deleted = [&listed[0], &listed[1], &listed[0]].map(|l| store.delete_listed(l));
    let [first, rewritten, again] = deleted;
    assert!(first.await.unwrap() && !rewritten.await.unwrap() && !again.await.unwrap());
    assert!(!store.has_blob(&one).await.unwrap());
    assert!(store.backend().head(&blob_key(&two.digest)).await.is_ok());
}

async fn every_chunk_of_every_release_is_named_also_of_one_not_yet_marked(store: Store) {
    assert!(store.released_blobs().await.unwrap().is_empty());
    let first = publish(&store, 1, None).await;
    let second = publish(&store, 2, Some(1)).await;
    store.backend().delete(&Key::from("latest/2")).await.unwrap();
    let named = store.released_blobs().await.unwrap();
    let files = || [&first, &second].into_iter().flat_map(|m| &m.files);
    let chunks: BTreeSet<Digest> = files().flat_map(|f| &f.chunks).map(|c| c.digest).collect();
    assert!(chunks.len() > 6 && chunks.is_subset(&named));
    assert!(files().all(|file| named.contains(&file.digest)));
    let stored = store.stored_blobs().await.unwrap();
    assert!(stored.iter().all(|stored| named.contains(&stored.blob.digest)));
}

async fn a_manifest_that_cannot_be_read_is_an_error(store: Store) {
    let manifest = publish(&store, 1, None).await;
    let key = Key::from("releases/1/manifest.json");
    for broken in ["", "{}", "not JSON"] {
        overwrite(&store, &key, broken.into()).await;
        let error = store.released_blobs().await.unwrap_err();
        assert!(error.to_string().contains(key.as_ref()), "{error}");
    }
    store.backend().delete(&key).await.unwrap();
    let error = store.released_blobs().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    forge(&store, &manifest).await;
    assert!(store.released_blobs().await.is_ok());
    for odd in ["releases/2/other", "releases/x/manifest.json", "releases/02/manifest.json"] {
        overwrite(&store, &Key::from(odd), b"{}".to_vec()).await;
        let error = store.released_blobs().await.unwrap_err();
        assert!(error.to_string().contains(odd), "{error}");
        store.backend().delete(&Key::from(odd)).await.unwrap();
    }
}

//! Things to store: bytes without a pattern, folders, drafts; and the odd hand on the backend.

use futures::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use tempfile::TempDir;
use uspx_artifact::{CHUNK_BYTES, Draft, Store, TransferProgress, silent};
use uspx_domain::{BlobRef, Digest, Fingerprint, Manifest, ReleaseNumber};

/// Bytes that depend on the seed and repeat nowhere.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A folder with a large file (3 chunks), a small one, an empty one and a nested one.
pub fn student(seed: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("gptq/deep")).unwrap();
    fs::write(root.join("gptq/model.safetensors"), noise(seed, 2 * CHUNK_BYTES + 12_345)).unwrap();
    fs::write(root.join("gptq/deep/config.json"), format!("{{\"seed\": {seed}}}")).unwrap();
    fs::write(root.join("README.md"), "the same in all").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    folder
}

pub fn draft(previous: Option<ReleaseNumber>) -> Draft {
    let print = |name: &str| Fingerprint(Digest::of(name.as_bytes()));
    Draft { colony: "test".into(), teacher: print("teacher"), base: print("base"), previous }
}

/// Publishes a student; panics if it cannot be.
pub async fn publish(store: &Store, seed: u64, previous: Option<ReleaseNumber>) -> Manifest {
    store.publish(student(seed).path(), &draft(previous), &silent).await.unwrap()
}

/// Every file below a folder with its content, as far as `names` of a manifest go.
pub fn assert_same(manifest: &Manifest, one: &Path, other: &Path) {
    for file in &manifest.files {
        assert_eq!(
            fs::read(one.join(&file.path)).unwrap(),
            fs::read(other.join(&file.path)).unwrap(),
            "{}",
            file.path
        );
    }
}

/// A blob's key, as the format has it.
pub fn blob_key(digest: &Digest) -> Key {
    let hex = digest.hex();
    Key::from(format!("blobs/{}/{hex}", &hex[..2]))
}

/// Puts other bytes in an object's place.
pub async fn overwrite(store: &Store, key: &Key, content: Vec<u8>) {
    store.backend().put(key, content.into()).await.unwrap();
}

/// A manifest as its publisher would store it, whatever it says, with the marker that makes it the
/// newest.
pub async fn forge(store: &Store, manifest: &Manifest) {
    let bytes = serde_json::to_vec(manifest).unwrap();
    let marker =
        format!("{{\"release\":{},\"manifest\":\"{}\"}}", manifest.release, Digest::of(&bytes));
    overwrite(store, &Key::from(format!("releases/{}/manifest.json", manifest.release)), bytes)
        .await;
    overwrite(store, &Key::from(format!("latest/{}", manifest.release)), marker.into_bytes()).await;
}

/// The keys of the store below a prefix, sorted.
pub async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    let listing = store.backend().list(Some(&Key::from(prefix)));
    let mut keys: Vec<String> =
        listing.map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    keys.sort();
    keys
}

/// The chunks of a release's large file.
pub fn large_chunks(manifest: &Manifest) -> Vec<BlobRef> {
    let large = manifest.files.iter().max_by_key(|file| file.bytes).unwrap();
    large.chunks.iter().map(|chunk| BlobRef { digest: chunk.digest, bytes: chunk.bytes }).collect()
}

/// Records progress, and checks that it never goes backwards.
#[derive(Default)]
pub struct Watch(Mutex<Vec<TransferProgress>>);

impl Watch {
    pub fn see(&self, now: TransferProgress) {
        let mut seen = self.0.lock().unwrap();
        if let Some(last) = seen.last() {
            assert!(
                now.done >= last.done && now.resumed >= last.resumed && now.total == last.total,
                "{last:?} {now:?}"
            );
        }
        assert!(now.done <= now.total && now.resumed <= now.done, "{now:?}");
        seen.push(now);
    }

    /// How often it was told that something moved.
    pub fn steps(&self) -> usize {
        let seen = self.0.lock().unwrap();
        seen.iter().zip(seen.iter().skip(1)).filter(|(a, b)| a.done < b.done).count()
    }

    pub fn last(&self) -> TransferProgress {
        *self.0.lock().unwrap().last().unwrap()
    }
}

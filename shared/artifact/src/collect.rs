//! What collecting unreferenced blobs needs of a store: which blobs it has, which of them releases
//! name, and deleting one that is still as old as it was when it was listed.

use crate::error::ArtifactError;
use crate::keys;
use crate::manifest::decode_manifest;
use crate::store::Store;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStoreExt};
use std::collections::BTreeSet;
use std::time::SystemTime;
use uspx_domain::{BlobRef, Digest, Manifest, ReleaseNumber};

/// A blob as the store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its name, and the length that it has there.
    pub blob: BlobRef,
    /// When it was written.
    pub modified: SystemTime,
}

impl StoredBlob {
    /// None for a key that is not a blob's: what uspx did not write it does not delete.
    fn of(meta: &ObjectMeta) -> Option<Self> {
        let digest = Digest::try_from(meta.location.filename()?.to_owned()).ok()?;
        let blob = BlobRef { digest, bytes: meta.size };
        let stored = Self { blob, modified: meta.last_modified.into() };
        (keys::blob(&blob) == meta.location).then_some(stored)
    }
}

impl Store {
    /// Every blob in the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn stored_blobs(&self) -> Result<Vec<StoredBlob>, ArtifactError> {
        let metas = self.listed("blobs").await?;
        Ok(metas.iter().filter_map(StoredBlob::of).collect())
    }

    /// The names of all files and chunks of all releases, also of one that is stored but not yet
    /// the newest.
    ///
    /// # Errors
    /// The store's; a manifest that is missing, damaged, or cannot be read: what it names is then
    /// not known.
    pub async fn released_blobs(&self) -> Result<BTreeSet<Digest>, ArtifactError> {
        let marked: BTreeSet<ReleaseNumber> = self.list().await?.into_iter().collect();
        let mut releases = marked.clone();
        for meta in self.listed("releases").await? {
            releases.insert(release_of(&meta.location)?);
        }
        let mut named = BTreeSet::new();
        for release in releases {
            let manifest = match marked.contains(&release) {
                true => self.manifest(release).await?,
                false => self.unmarked(release).await?,
            };
            for file in manifest.files {
                named.insert(file.digest);
                named.extend(file.chunks.into_iter().map(|chunk| chunk.digest));
            }
        }
        Ok(named)
    }

    /// Deletes a blob unless it was written again since it was listed; whether it did.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_listed(&self, listed: &StoredBlob) -> Result<bool, ArtifactError> {
        let key = keys::blob(&listed.blob);
        let now = match self.inner.head(&key).await {
            Ok(meta) => StoredBlob::of(&meta),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => return Err(self.failed(&key, error)),
        };
        if now != Some(*listed) {
            return Ok(false);
        }
        self.delete_blob(&listed.blob).await?;
        Ok(true)
    }

    /// A release whose publisher died before it was marked, or is about to mark it.
    async fn unmarked(&self, release: ReleaseNumber) -> Result<Manifest, ArtifactError> {
        let key = keys::manifest(release);
        let bytes = self.get(&key).await?.bytes().await.map_err(|e| self.failed(&key, e))?;
        match decode_manifest(&bytes) {
            Ok(manifest) if manifest.release == release => Ok(manifest),
            Ok(other) => Err(unusable(&key, format!("it speaks of release {}", other.release))),
            Err(reason) => Err(unusable(&key, reason)),
        }
    }
}

/// The release that a manifest's key names.
fn release_of(key: &Key) -> Result<ReleaseNumber, ArtifactError> {
    let number = key.parts().nth(1).and_then(|part| part.as_ref().parse().ok());
    number.filter(|number| keys::manifest(*number) == *key).ok_or_else(|| {
        unusable(key, "it is not a manifest that uspx writes: move it elsewhere".to_owned())
    })
}

fn unusable(key: &Key, reason: String) -> ArtifactError {
    ArtifactError::Manifest { key: key.to_string(), reason }
}

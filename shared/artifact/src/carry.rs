//! Bringing one store's content into another, say when a colony that began in a folder moves to a
//! bucket: blobs first, each read back, then the releases in order (invariant 6).

use crate::blob::PART_BYTES;
use crate::error::ArtifactError;
use crate::keys;
use crate::progress::{Meter, OnProgress, silent};
use crate::store::Store;
use std::path::Path;
use uspx_domain::{BlobRef, ReleaseNumber};

impl Store {
    /// Brings every blob and release of `from` here that is not here yet. `from` stays as it is;
    /// broken off anywhere, the same call goes on. Large blobs pass through a file in `scratch`.
    ///
    /// # Errors
    /// [`ArtifactError::NotOurs`] where a release of that number stands here that is another, before
    /// anything is brought; either store's.
    pub async fn bring(
        &self,
        from: &Store,
        scratch: &Path,
        tell: OnProgress<'_>,
    ) -> Result<(), ArtifactError> {
        from.settle().await?;
        let missing = self.missing_releases(from).await?;
        let blobs = from.stored_blobs().await?;
        let meter = Meter::new(blobs.iter().map(|stored| stored.blob.bytes).sum(), tell);
        for stored in &blobs {
            self.bring_blob(from, &stored.blob, scratch).await?;
            meter.moved(stored.blob.bytes);
        }
        for release in missing {
            let manifest = from.manifest(release).await?;
            if !self.create_manifest(&manifest).await? {
                return Err(self.not_ours(release));
            }
        }
        Ok(())
    }

    /// Releases that `from` has and this store has not; those that both have are the same.
    async fn missing_releases(&self, from: &Store) -> Result<Vec<ReleaseNumber>, ArtifactError> {
        self.settle().await?;
        let here = self.list().await?;
        let mut missing = Vec::new();
        for release in from.list().await? {
            if !here.contains(&release) {
                missing.push(release);
            } else if self.manifest(release).await? != from.manifest(release).await? {
                return Err(self.not_ours(release));
            }
        }
        // One that is only here would come to stand among the others.
        match here.iter().find(|n| missing.first().is_some_and(|first| *n > first)) {
            Some(other) => Err(self.not_ours(*other)),
            None => Ok(missing),
        }
    }

    async fn bring_blob(
        &self,
        from: &Store,
        blob: &BlobRef,
        scratch: &Path,
    ) -> Result<(), ArtifactError> {
        if blob.bytes <= PART_BYTES {
            let content = from.get_blob(blob, blob.bytes, &silent).await?;
            let unheard = Meter::new(0, &silent);
            return self.store_blob(*blob, content, &unheard).await.map(drop);
        }
        let file = scratch.join(blob.digest.hex());
        from.get_file(blob, &file, blob.bytes, &silent).await?;
        self.put_file(&file, &silent).await?;
        std::fs::remove_file(&file).map_err(ArtifactError::io("remove", &file))
    }

    fn not_ours(&self, release: ReleaseNumber) -> ArtifactError {
        let key = keys::manifest(release).to_string();
        ArtifactError::NotOurs { store: self.url().to_owned(), key }
    }
}

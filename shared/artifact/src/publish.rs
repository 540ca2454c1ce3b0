//! Publishing: blobs first, each stored and read back, then the manifest, then the marker
//! (invariant 6).

use crate::chunks::{self, Chunk};
use crate::error::ArtifactError;
use crate::progress::{Meter, OnProgress, silent};
use crate::store::Store;
use futures::stream::{self, TryStreamExt};
use std::path::Path;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use uspx_domain::{FileEntry, Fingerprint, Manifest, ReleaseNumber};

/// Chunks under way at once: with [`crate::CHUNK_BYTES`], the memory that publishing takes.
const AT_ONCE: usize = 6;

/// What a release says of itself beside its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The colony that made it.
    pub colony: String,
    /// The teacher it was distilled from.
    pub teacher: Fingerprint,
    /// The base student.
    pub base: Fingerprint,
    /// The newest release when this one was judged ([`Store::latest`]). If it is no longer, nothing
    /// is published: the student has to be judged against the newer one first.
    pub previous: Option<ReleaseNumber>,
}

impl Store {
    /// Publishes a folder as the release after `draft.previous`. Nothing is visible before all of
    /// it is stored and verified.
    ///
    /// # Errors
    /// [`ArtifactError::Superseded`] where another release was faster; [`ArtifactError::Unfit`] for
    /// a folder that cannot be published; the store's. After any of them the same call can be made
    /// again: what is stored is not sent twice.
    pub async fn publish(
        &self,
        folder: &Path,
        draft: &Draft,
        tell: OnProgress<'_>,
    ) -> Result<Manifest, ArtifactError> {
        // Both before the work and after it: to refuse early, and because it can take hours.
        self.must_be_newest(draft.previous).await?;
        let files = self.send_files(folder, tell).await?;
        self.must_be_newest(draft.previous).await?;
        let manifest = Manifest {
            version: 1,
            release: draft.previous.unwrap_or(0).saturating_add(1),
            colony: draft.colony.clone(),
            teacher: draft.teacher,
            base: draft.base,
            previous: draft.previous,
            files,
        };
        if !self.create_manifest(&manifest).await? {
            return Err(ArtifactError::Superseded {
                expected: draft.previous,
                found: manifest.release,
            });
        }
        tracing::info!(release = manifest.release, files = manifest.files.len(), "published");
        Ok(manifest)
    }

    async fn must_be_newest(&self, expected: Option<ReleaseNumber>) -> Result<(), ArtifactError> {
        match self.settle().await? {
            found if found == expected => Ok(()),
            Some(found) if Some(found) > expected => {
                Err(ArtifactError::Superseded { expected, found })
            }
            // The store is another one, or was emptied.
            _ => Err(ArtifactError::NoRelease { store: self.url().to_owned(), release: expected }),
        }
    }

    /// Stores every chunk of the folder, and returns the files' entries.
    async fn send_files(
        &self,
        folder: &Path,
        tell: OnProgress<'_>,
    ) -> Result<Vec<FileEntry>, ArtifactError> {
        let root = folder.to_owned();
        let found = spawn_blocking(move || chunks::files_of(&root)).await;
        let found = found.map_err(|e| ArtifactError::stopped(folder, e))??;
        let meter = Meter::new(found.iter().map(|file| file.bytes).sum(), tell);
        let (to, from) = mpsc::channel(1);
        let reader = spawn_blocking(move || chunks::read_all(found, &to));
        let sent = self.send_chunks(from, &meter).await;
        // The reader has ended: its channel is closed at one end or the other. The store's error
        // says more than its own.
        let entries = reader.await.map_err(|e| ArtifactError::stopped(folder, e))?;
        sent.and(entries)
    }

    async fn send_chunks(
        &self,
        from: mpsc::Receiver<Chunk>,
        meter: &Meter<'_>,
    ) -> Result<(), ArtifactError> {
        let chunks = stream::unfold(from, |mut from| async move {
            from.recv().await.map(|chunk| (Ok(chunk), from))
        });
        chunks.try_for_each_concurrent(AT_ONCE, |chunk| self.send_chunk(chunk, meter)).await
    }

    async fn send_chunk(&self, chunk: Chunk, meter: &Meter<'_>) -> Result<(), ArtifactError> {
        // Counted as a whole, once it is stored and read back.
        let unheard = Meter::new(0, &silent);
        let sent = self.store_blob(chunk.blob, chunk.content, &unheard).await?;
        if sent {
            meter.moved(chunk.blob.bytes)
        } else {
            meter.resumed(chunk.blob.bytes)
        }
        Ok(())
    }
}

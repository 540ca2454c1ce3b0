//! Blobs from and to files, a few parts in memory at a time.

use crate::blob::{PART_BYTES, must_fit};
use crate::error::ArtifactError;
use crate::keys;
use crate::progress::{Meter, OnProgress};
use crate::store::Store;
use blake3::Hasher;
use bytes::Bytes;
use futures::stream::{self, Stream};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uspx_domain::{BlobRef, Digest};

impl Store {
    /// Stores a file as a blob and reads it back.
    ///
    /// # Errors
    /// The store's; a file that cannot be read, or changes while it is read.
    pub async fn put_file(
        &self,
        path: &Path,
        tell: OnProgress<'_>,
    ) -> Result<BlobRef, ArtifactError> {
        let blob = blob_of_file(path).await?;
        let meter = Meter::twice(&blob, tell);
        if self.holds(&blob, &meter).await? {
            return Ok(blob);
        }
        if blob.bytes <= PART_BYTES {
            let content = tokio::fs::read(path).await.map_err(ArtifactError::io("read", path))?;
            return self.put_unchanged(path, blob, content.into(), &meter).await;
        }
        self.upload(&keys::blob(&blob), parts_of(path, blob), &meter).await?;
        self.read_through(&blob, &meter).await?;
        Ok(blob)
    }

    async fn put_unchanged(
        &self,
        path: &Path,
        blob: BlobRef,
        content: Bytes,
        meter: &Meter<'_>,
    ) -> Result<BlobRef, ArtifactError> {
        if BlobRef::to(&content) != blob {
            return Err(changed(path));
        }
        self.store_blob(blob, content, meter).await?;
        Ok(blob)
    }

    /// Fetches a blob of at most `most` bytes into a file. The file appears, or is replaced, only
    /// when all of it is there and verified; one that is the blob already is left as it is.
    ///
    /// # Errors
    /// As [`Store::get_blob`]; a file that cannot be written.
    pub async fn get_file(
        &self,
        blob: &BlobRef,
        path: &Path,
        most: u64,
        tell: OnProgress<'_>,
    ) -> Result<(), ArtifactError> {
        must_fit(blob, most)?;
        let meter = Meter::new(blob.bytes, tell);
        if is_already(path, blob).await {
            meter.resumed(blob.bytes);
            return Ok(());
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(ArtifactError::io("create the folder", folder))?;
        let beside =
            NamedTempFile::new_in(folder).map_err(ArtifactError::io("create a file in", folder))?;
        let handle = beside.reopen().map_err(ArtifactError::io("write", path))?;
        let mut file = tokio::fs::File::from_std(handle);
        let mut reader = self.read_blob(blob, &meter);
        while let Some(part) = reader.next().await? {
            file.write_all(&part).await.map_err(ArtifactError::io("write", path))?;
        }
        file.flush().await.map_err(ArtifactError::io("write", path))?;
        file.sync_all().await.map_err(ArtifactError::io("write", path))?;
        beside.persist(path).map(drop).map_err(|e| ArtifactError::io("replace", path)(e.error))
    }
}

/// Whether a file holds a blob. One that cannot be read does not.
async fn is_already(path: &Path, blob: &BlobRef) -> bool {
    let plain = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() == blob.bytes);
    plain && blob_of_file(path).await.is_ok_and(|found| found == *blob)
}

/// The blob that a file's content would be.
async fn blob_of_file(path: &Path) -> Result<BlobRef, ArtifactError> {
    let of = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || hash_file(&of)).await;
    hashed.map_err(|e| ArtifactError::stopped(path, e))?.map_err(ArtifactError::io("read", path))
}

/// Hashes a file; blocking.
pub(crate) fn hash_file(path: &Path) -> io::Result<BlobRef> {
    BlobRef::to_all_of(File::open(path)?)
}

/// What [`parts_of`] remembers between two parts.
struct Reading {
    path: PathBuf,
    file: Option<tokio::fs::File>,
    hash: Hasher,
    want: BlobRef,
}

/// A file's parts. The last is followed by an error if the file is no longer what it was when it
/// was hashed.
fn parts_of(path: &Path, want: BlobRef) -> impl Stream<Item = Result<Bytes, ArtifactError>> {
    let start = Reading { path: path.to_owned(), file: None, hash: Hasher::new(), want };
    stream::try_unfold(start, |mut at| async move {
        let part = next_part(&mut at).await.map_err(ArtifactError::io("read", &at.path))?;
        if !part.is_empty() {
            at.hash.update(&part);
            return Ok(Some((part, at)));
        }
        let found =
            BlobRef { digest: Digest(*at.hash.finalize().as_bytes()), bytes: at.hash.count() };
        if found == at.want { Ok(None) } else { Err(changed(&at.path)) }
    })
}

async fn next_part(at: &mut Reading) -> io::Result<Bytes> {
    let file = match &mut at.file {
        Some(file) => file,
        none => none.insert(tokio::fs::File::open(&at.path).await?),
    };
    let mut part = Vec::with_capacity(PART_BYTES as usize);
    file.take(PART_BYTES).read_to_end(&mut part).await?;
    Ok(part.into())
}

fn changed(path: &Path) -> ArtifactError {
    let reason = "it changed while it was read: try again when nothing writes there".to_owned();
    ArtifactError::Unfit { path: path.to_owned(), reason }
}

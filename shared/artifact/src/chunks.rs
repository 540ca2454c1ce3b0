//! A folder read chunk by chunk on a thread of its own: what publishing sends, and what its
//! manifest will list.

use crate::CHUNK_BYTES;
use crate::error::ArtifactError;
use crate::manifest::{FILE_NAME, check_path};
use crate::stamp;
use blake3::Hasher;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use uspx_domain::{BlobRef, ChunkEntry, Digest, FileEntry};

/// A file of the folder: its path within it, where it lies, and its length.
#[derive(Debug)]
pub(crate) struct Found {
    name: String,
    path: PathBuf,
    pub(crate) bytes: u64,
}

/// The folder's files, sorted by path. A manifest and a stamp that lie in it (of a release that was
/// pulled) are not among them.
pub(crate) fn files_of(folder: &Path) -> Result<Vec<Found>, ArtifactError> {
    let mut found = Vec::new();
    walk(folder, "", &mut found)?;
    if found.is_empty() {
        return Err(unfit(folder, "it has no file"));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<Found>) -> Result<(), ArtifactError> {
    let read = || ArtifactError::io("read the folder", folder);
    for item in fs::read_dir(folder).map_err(read())? {
        let item = item.map_err(read())?;
        let path = item.path();
        let name = item
            .file_name()
            .into_string()
            .map_err(|_| unfit(&path, "its name is not UTF-8: rename it"))?;
        let name = format!("{prefix}{name}");
        let meta = item.metadata().map_err(ArtifactError::io("read", &path))?;
        if meta.is_dir() {
            walk(&path, &format!("{name}/"), found)?;
        } else if !meta.is_file() {
            return Err(unfit(&path, "it is a link or no plain file: put the file itself there"));
        } else if name != FILE_NAME && name != stamp::FILE_NAME {
            check_path(&name).map_err(|reason| unfit(&path, &reason))?;
            found.push(Found { name, path, bytes: meta.len() });
        }
    }
    Ok(())
}

/// A chunk on its way to the store.
pub(crate) struct Chunk {
    pub(crate) blob: BlobRef,
    pub(crate) content: Bytes,
}

/// Reads all files, hands their chunks over one by one, and returns the entries. Blocking: on a
/// thread of its own. Ends early, without an error, when nobody takes the chunks any more.
pub(crate) fn read_all(
    files: Vec<Found>,
    to: &mpsc::Sender<Chunk>,
) -> Result<Vec<FileEntry>, ArtifactError> {
    files.into_iter().map(|file| read_file(file, to)).collect()
}

fn read_file(found: Found, to: &mpsc::Sender<Chunk>) -> Result<FileEntry, ArtifactError> {
    let path = found.path.as_path();
    let mut file = File::open(path).map_err(ArtifactError::io("open", path))?;
    let (mut whole, mut chunks) = (Hasher::new(), Vec::new());
    loop {
        let mut content = Vec::with_capacity(CHUNK_BYTES);
        let read = file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut content);
        read.map_err(ArtifactError::io("read", path))?;
        whole.update(&content);
        let blob = BlobRef::to(&content);
        if blob.bytes == 0 || to.blocking_send(Chunk { blob, content: content.into() }).is_err() {
            break;
        }
        chunks.push(ChunkEntry { bytes: blob.bytes, digest: blob.digest });
    }
    if whole.count() != found.bytes {
        return Err(unfit(path, "it changed while it was read: publish when nothing writes there"));
    }
    let digest = Digest(*whole.finalize().as_bytes());
    Ok(FileEntry { path: found.name, bytes: found.bytes, digest, chunks })
}

fn unfit(path: &Path, reason: &str) -> ArtifactError {
    ArtifactError::Unfit { path: path.to_owned(), reason: reason.to_owned() }
}

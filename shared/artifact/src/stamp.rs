//! What a release's files looked like from outside when they were last verified: it lets a pull
//! skip hashing them, and say that it did.
//!
//! Only as good as the file system's word: bytes that change under the same length, time and inode
//! are found by hashing alone.

use crate::error::ArtifactError;
use crate::local::file_path;
use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;
use tempfile::NamedTempFile;
use uspx_domain::{Digest, FileEntry, Manifest};

/// Name of the stamp within a release's folder; no file of a release has it.
pub(crate) const FILE_NAME: &str = ".verified.json";

/// A release's files, in the manifest's order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(Vec<Seen>);

/// One file, as it was when it had this digest.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    digest: Digest,
    bytes: u64,
    /// When it was written: seconds since 1970, and nanoseconds.
    modified: (u64, u32),
    inode: u64,
}

/// Whether a release's files are as they were when they were verified. A stamp that is missing or
/// cannot be read says no.
pub(crate) fn fits(folder: &Path, manifest: &Manifest) -> bool {
    let written = fs::read(folder.join(FILE_NAME)).ok();
    let written = written.and_then(|bytes| serde_json::from_slice::<Stamp>(&bytes).ok());
    written.is_some_and(|stamp| look(folder, manifest).is_ok_and(|now| now == stamp))
}

/// Notes that a release's files were verified just now.
pub(crate) fn write(folder: &Path, manifest: &Manifest) -> Result<(), ArtifactError> {
    let path = folder.join(FILE_NAME);
    let written = look(folder, manifest).and_then(|stamp| {
        let mut beside = NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut beside, &stamp)?;
        beside.persist(&path).map(drop).map_err(|e| e.error)
    });
    written.map_err(ArtifactError::io("write", &path))
}

fn look(folder: &Path, manifest: &Manifest) -> io::Result<Stamp> {
    let seen = |entry: &FileEntry| see(&file_path(folder, entry), entry);
    manifest.files.iter().map(seen).collect::<io::Result<_>>().map(Stamp)
}

fn see(path: &Path, entry: &FileEntry) -> io::Result<Seen> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    let since = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let modified = (since.as_secs(), since.subsec_nanos());
    Ok(Seen { digest: entry.digest, bytes: meta.len(), modified, inode: inode(&meta) })
}

#[cfg(unix)]
fn inode(meta: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

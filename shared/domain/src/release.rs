//! A published student: what its manifest says.

use crate::{Digest, Fingerprint};
use serde::{Deserialize, Serialize};

/// Releases are numbered from 1 without gaps; `latest` only moves forward.
pub type ReleaseNumber = u64;

/// The list of a release's files. It appears only after every blob it names is stored and verified
/// (invariant 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format's version: 1.
    pub version: u32,
    /// Which release.
    pub release: ReleaseNumber,
    /// The colony that made it.
    pub colony: String,
    /// The teacher it was distilled from.
    pub teacher: Fingerprint,
    /// The base student.
    pub base: Fingerprint,
    /// The release before it, if any.
    pub previous: Option<ReleaseNumber>,
    /// Its files, sorted by path.
    pub files: Vec<FileEntry>,
}

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path within the release's folder, `/`-separated.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole file.
    pub digest: Digest,
    /// Its chunks in order, each a blob of its own, so that a pull resumes and verifies piece by
    /// piece.
    pub chunks: Vec<ChunkEntry>,
}

/// One chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkEntry {
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the chunk, which is also its key in the store.
    pub digest: Digest,
}

//! A published student: what its manifest says.

use crate::{BlobRef, Digest, Fingerprint};
use serde::{Deserialize, Serialize};

/// Releases are numbered from 1 without gaps; `latest` only moves forward.
pub type ReleaseNumber = u64;

/// What a student is called in its files and in its release: its base, and the adapter that makes it
/// another one. Whoever exports it knows both, and not yet the release that it may become.
pub fn student_name(base: &str, adapter: Option<&BlobRef>) -> String {
    let of = |blob: &BlobRef| blob.digest.hex().chars().take(8).collect::<String>();
    adapter.map_or_else(|| base.to_owned(), |blob| format!("{base}-uspx-{}", of(blob)))
}

/// PEFT's file with an adapter's tensors.
pub const ADAPTER_TENSORS: &str = "adapter_model.safetensors";
/// PEFT's file that says how they apply.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

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

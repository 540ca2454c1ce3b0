//! The object store: content-addressed blobs, and releases that are published whole and pulled
//! whole.
//!
//! The only crate that names `object_store`. What it keeps, whatever the backend (invariant 6): a
//! manifest appears only after every blob that it names is stored and reads back right; `latest`
//! only moves forward; a pull is all or nothing, and goes on where it was interrupted.
//!
//! ```text
//! blobs/ab/abcdef…            content-addressed (BLAKE3), written once
//! releases/<n>/manifest.json  created, never overwritten: the point at which a release exists
//! states/<task>               which blob is the state of a job under way, and whose; replaced, and gone with its task
//! latest/<n>                  created after it, holds the manifest's digest: the highest one is the newest release
//! ```
//!
//! No text of a prompt is part of a key or of a log line here: keys are digests and numbers.

mod blob;
mod blob_file;
mod blob_read;
mod carry;
mod chunks;
mod collect;
mod error;
mod fetch;
mod install;
mod keys;
mod local;
mod lock;
mod manifest;
mod plain;
mod pointer;
mod private;
mod progress;
mod publish;
mod pull;
mod pull_report;
mod release;
mod release_file;
mod rollback;
mod rolled_back;
mod s3;
mod stamp;
mod state;
mod store;

pub use collect::StoredBlob;
pub use error::{ArtifactError, ErrorKind};
pub use local::{
    DamagedFiles, LocalRelease, VerifyReport, current, local_releases, prune, read_release, verify,
};
pub use manifest::{check_manifest, decode_manifest, encode_manifest};
pub use progress::{OnProgress, TransferProgress, silent};
pub use publish::Draft;
pub use pull::pull;
pub use pull_report::{Checked, PullOptions, PullReport, Pulled};
pub use rollback::{rollback, rollback_here};
pub use rolled_back::rolled_back_from;
pub use state::TaskState;
pub use store::Store;

/// Length of every chunk of a file but its last, in bytes. Content-defined chunks would share
/// nothing between two dense students, so the cuts are fixed.
pub const CHUNK_BYTES: usize = 4 << 20;

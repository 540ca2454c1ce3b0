//! What ends a coordinator.

use crate::ledger::{Damage, FILE_NAME};
use std::path::PathBuf;
use uspx_artifact::ArtifactError;
use uspx_bus::BusError;
use uspx_colony::{ConfigError, SnapshotError};

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A file of the state folder cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another coordinator works on the same state.
    #[error("{0} is in use by another coordinator: stop that one, or choose another state folder")]
    Locked(PathBuf),
    /// Another coordinator, with another state folder, works on this bus.
    #[error(
        "{owner} works for this colony on this bus: stop that one, or give this one a bus of its own. Two would take each other's answers"
    )]
    Owned {
        /// Who.
        owner: String,
    },
    /// Another coordinator has taken the colony over while this one was not heard of.
    #[error(
        "{owner} has taken this colony over on this bus, so this one ends; its ledger holds all that it accepted. Stop that one before this one is started again"
    )]
    Replaced {
        /// Who.
        owner: String,
    },
    /// Something that the ledger had synced is no longer there as it was.
    #[error("{path} is {damage}. {}", damage.fault.remedy())]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// Where, and what.
        damage: Damage,
    },
    /// The file is not a ledger, or one of a newer uspx.
    #[error(
        "{0} is not a ledger that this version of uspx reads: update uspx, or choose another state folder"
    )]
    NotALedger(PathBuf),
    /// The ledger is of the first format, which no release ever wrote.
    #[error(
        "{0} is a ledger of format 1, from before the first release: begin anew in another state folder"
    )]
    OldLedger(PathBuf),
    /// A record is whole, but of a kind or form that is not known here.
    #[error(
        "{path}: record {sequence} is whole, but not one that this version of uspx reads: update uspx ({source})"
    )]
    UnknownRecord {
        /// The ledger.
        path: PathBuf,
        /// The record's number.
        sequence: u64,
        /// Why.
        source: rmp_serde::decode::Error,
    },
    /// A ledger begins with a snapshot of a state that has another form here.
    #[error(
        "{path}: record {sequence} is a snapshot that uspx {written_by} wrote, and this version would read otherwise. Nothing was \
         changed: start the coordinator with that version; or move {before} and {before}.head to {path} and {path}.head: they hold \
         every record up to the snapshot, and what came since is done again"
    )]
    OtherSnapshot {
        /// The ledger.
        path: PathBuf,
        /// The snapshot's number.
        sequence: u64,
        /// The version that reads it.
        written_by: String,
        /// Where the ledger lies that it stands for.
        before: PathBuf,
    },
    /// A file is not an exported ledger, or is damaged.
    #[error(
        "{path} is not a whole exported ledger: at byte {at}, {reason}. Nothing was written: export or copy it again"
    )]
    Archive {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// What is wrong.
        reason: String,
    },
    /// A ledger is to be imported where there is one.
    #[error("{0} is there already: import into another state folder")]
    Occupied(PathBuf),
    /// The ledgers named seem to be another store's.
    #[error(
        "the ledgers named speak of none of the {blobs} blobs in {store}: name the state folder (--state) of every coordinator \
         that works with this store. Nothing was deleted"
    )]
    Stranger {
        /// The store.
        store: String,
        /// Its blobs.
        blobs: usize,
    },
    /// A record cannot be written down.
    #[error("a record cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// The campaign cannot run.
    #[error("the campaign cannot begin: {0}")]
    Campaign(#[from] ConfigError),
    /// A prompt that the ledger names is not in the prompt files.
    #[error(
        "{0}. The ledger was begun with other prompt files: give the same ones, or another state folder"
    )]
    Prompts(#[from] uspx_colony::AttachError),
    /// One file of prompts cannot be split.
    #[error(
        "the prompts make only {different} groups that differ from one another: give at least three, or files of their own \
         to learn from, to choose by and to hold out"
    )]
    TooFewPrompts {
        /// Clusters of near-duplicates.
        different: usize,
    },
    /// A part of the service ended before it.
    #[error(
        "a reader of the coordinator {how}, which is a bug: start the coordinator again, it goes on from the ledger"
    )]
    Reader {
        /// What became of it.
        how: &'static str,
    },
    /// The bus failed for good.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A message cannot be encoded.
    #[error(transparent)]
    Wire(#[from] uspx_wire::WireError),
    /// A worker's adapter does not say what `peft` needs to know of it.
    #[error(
        "{path}: the adapter's header holds no configuration ({source}): update the workers, and distil again"
    )]
    Adapter {
        /// The file.
        path: PathBuf,
        /// What its header lacks.
        source: serde_json::Error,
    },
    /// A defect of uspx ended publishing.
    #[error(
        "publishing broke off by a defect of uspx, named in the log above: nothing is lost; start the coordinator again, and report it"
    )]
    Publishing,
    /// The store failed for good.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

impl ServiceError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

impl From<SnapshotError> for ServiceError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Write(source) => Self::Encode(source),
            other @ SnapshotError::Read(_) => Self::file(FILE_NAME)(std::io::Error::other(other)),
        }
    }
}

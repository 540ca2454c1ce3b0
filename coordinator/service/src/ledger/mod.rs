//! The ledger: an append-only file of records, each durable before anything follows from it
//! (invariants 1 and 3).
//!
//! `ledger` holds the records (`frame`), `ledger.head` beside it says how far it was synced
//! (`head`). Opening reads it through (`scan`): up to the head everything must be whole, and what
//! is not is damage, refused with its place (`fault`); beyond the head lies at most an append that
//! never returned, of which whole records are kept and the rest is set aside and cut off (`log`). A
//! ledger that lost its middle would replay to another mask without saying so. A person may have it
//! cut at the damage (`repair`), and is told what that loses (`salvage`); or move it to another
//! machine (`moving`) as one file (`archive`).
//!
//! A long one is begun anew with a snapshot of what its records come to (`compaction`, `start`).

mod archive;
mod compaction;
mod disk;
mod fault;
mod frame;
mod head;
mod log;
pub mod moving;
mod repair;
mod salvage;
mod scan;
mod start;
mod survey;
#[cfg(test)]
pub(crate) mod tests;

use crate::ServiceError;
use compaction::Grown;
use disk::Folder;
use log::Log;
use serde::Deserialize;
use std::path::Path;
use uspx_colony::{Record, Snapshot};

pub use compaction::Compaction;
pub use disk::{before_path, head_path};
pub use fault::{Damage, Fault};
pub use repair::{Aside, Loss, Repair, repair};
pub use survey::{Extent, Survey, replay_file, survey};

/// The ledger's name in a state folder.
pub const FILE_NAME: &str = "ledger";

/// An open ledger. One process holds it at a time.
#[derive(Debug)]
pub struct Ledger {
    log: Log<Folder>,
    grown: Grown,
}

impl Ledger {
    /// Opens or begins the ledger at `path` and hands every record, in order, to `each`.
    ///
    /// # Errors
    /// Another process holds it; it is damaged; it is not a ledger of this version; a file cannot
    /// be read or written.
    pub fn open(path: &Path, mut each: impl FnMut(Record)) -> Result<Self, ServiceError> {
        let mut grown = Grown::default();
        let log = Log::open(Folder::hold(path)?, |sequence, payload| {
            let record = decode(path, sequence, payload)?;
            match record {
                Record::Snapshot(_) => grown.snapshot(payload.len()),
                _ => grown.record(payload.len()),
            }
            each(record);
            Ok(())
        })?;
        Ok(Self { log, grown })
    }

    /// The number of the last record; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.log.sequence()
    }

    /// Appends records and returns when they are on the disk.
    ///
    /// # Errors
    /// Where they may not be; the colony's state must then be dropped and replayed.
    pub fn append(&mut self, records: &[Record]) -> Result<(), ServiceError> {
        let payloads: Vec<Vec<u8>> =
            records.iter().map(rmp_serde::to_vec_named).collect::<Result<_, _>>()?;
        self.log.append(&payloads)?;
        payloads.iter().for_each(|payload| self.grown.record(payload.len()));
        Ok(())
    }

    /// Whether it may be time to begin it anew with a snapshot, as far as is known without one.
    pub fn is_long(&self, when: &Compaction) -> bool {
        self.grown.is_worth(when)
    }

    /// Begins it anew with a snapshot of all its records, if that is short enough; whether it did.
    /// What was there is kept as [`before_path`] and its head until the next time.
    ///
    /// # Errors
    /// The snapshot is too long for a record, or the disk fails. The ledger goes on as it was where
    /// it [is sound](Self::is_sound); otherwise the colony's state must be dropped and replayed.
    pub fn compact(&mut self, snapshot: Snapshot, when: &Compaction) -> Result<bool, ServiceError> {
        let payload = rmp_serde::to_vec_named(&Record::Snapshot(Box::new(snapshot)))?;
        self.grown.would_be(payload.len());
        if !self.is_long(when) {
            return Ok(false);
        }
        self.log.shorten(&payload).inspect_err(|_| self.grown.put_off())?;
        self.grown.snapshot(payload.len());
        Ok(true)
    }

    /// Whether it takes records: not after an error that left open what is on the disk.
    pub fn is_sound(&self) -> bool {
        self.log.is_sound()
    }
}

/// A ledger that is held without being opened: nobody appends to it meanwhile.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held for its lock")] Folder);

/// Holds the ledger at `path`, and changes nothing.
///
/// # Errors
/// Another process holds it, or there is none.
pub fn hold(path: &Path) -> Result<Held, ServiceError> {
    Folder::hold_existing(path).map(Held)
}

/// A payload's record.
fn decode(path: &Path, sequence: u64, payload: &[u8]) -> Result<Record, ServiceError> {
    let unknown = |source| match written_by(payload) {
        Some(written_by) => other_snapshot(path, sequence, written_by),
        None => ServiceError::UnknownRecord { path: path.to_owned(), sequence, source },
    };
    let record = rmp_serde::from_slice(payload).map_err(unknown)?;
    match &record {
        Record::Snapshot(snapshot) if !snapshot.is_as_written().is_ok_and(|same| same) => {
            Err(other_snapshot(path, sequence, snapshot.written_by.clone()))
        }
        _ => Ok(record),
    }
}

fn other_snapshot(path: &Path, sequence: u64, written_by: String) -> ServiceError {
    let before = before_path(path);
    ServiceError::OtherSnapshot { path: path.to_owned(), sequence, written_by, before }
}

/// The uspx that wrote a snapshot, whether or not the rest of it can be read; none of any other
/// record.
fn written_by(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Snapshot(Written),
    }
    #[derive(Deserialize)]
    struct Written {
        written_by: String,
    }
    let Kind::Snapshot(Written { written_by }) = rmp_serde::from_slice(payload).ok()?;
    Some(written_by)
}

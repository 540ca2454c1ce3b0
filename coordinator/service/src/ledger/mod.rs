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

mod archive;
mod disk;
mod fault;
mod frame;
mod head;
mod log;
pub mod moving;
mod repair;
mod salvage;
mod scan;
mod survey;
#[cfg(test)]
pub(crate) mod tests;

use crate::ServiceError;
use disk::Folder;
use log::Log;
use std::path::Path;
use uspx_colony::Record;

pub use disk::head_path;
pub use fault::{Damage, Fault};
pub use repair::{Aside, Loss, Repair, repair};
pub use survey::{Extent, Survey, replay_file, survey};

/// The ledger's name in a state folder.
pub const FILE_NAME: &str = "ledger";

/// An open ledger. One process holds it at a time.
#[derive(Debug)]
pub struct Ledger {
    log: Log<Folder>,
}

impl Ledger {
    /// Opens or begins the ledger at `path` and hands every record, in order, to `each`.
    ///
    /// # Errors
    /// Another process holds it; it is damaged; it is not a ledger of this version; a file cannot
    /// be read or written.
    pub fn open(path: &Path, mut each: impl FnMut(Record)) -> Result<Self, ServiceError> {
        let log = Log::open(Folder::hold(path)?, |sequence, payload| {
            each(decode(path, sequence, payload)?);
            Ok(())
        })?;
        Ok(Self { log })
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
        self.log.append(&payloads)
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
    rmp_serde::from_slice(payload).map_err(|source| {
        let path = path.to_owned();
        ServiceError::UnknownRecord { path, sequence, source }
    })
}

//! Looking at a ledger without holding or changing it, beside a running coordinator too: what lies
//! beyond the head is then simply being written.

use super::decode;
use super::disk::{head_path, read_file};
use super::head::Head;
use super::scan::scan;
use super::start;
use crate::ServiceError;
use serde::Serialize;
use std::path::Path;
use uspx_colony::{Record, State};

/// What a look at a whole ledger shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Whole records, those that a snapshot stands for among them.
    pub records: u64,
    /// Records that the snapshot stands for with which a shortened ledger begins: what they came to
    /// is known, but not what they were.
    pub folded: u64,
    /// How far it was synced for certain.
    pub head: Extent,
    /// What lies beyond: being written just now, or left by a crash. The next start keeps its whole
    /// records and sets the rest aside.
    pub beyond: Extent,
}

/// A part of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// Whole records in it.
    pub records: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// Reads the ledger at `path` through and hands every whole record to `each`.
///
/// # Errors
/// As [`super::Ledger::open`], but for the lock; or there is no ledger.
pub fn survey(path: &Path, each: impl FnMut(Record)) -> Result<Survey, ServiceError> {
    let (ledger, head) = both(path)?;
    survey_bytes(path, &ledger, head.as_deref(), each)
}

/// Ledger and head as they belong together. The head is read first: what it names was in the ledger
/// before. Where the ledger was shortened between the two, the head has moved on.
fn both(path: &Path) -> Result<(Vec<u8>, Option<Vec<u8>>), ServiceError> {
    let mut head = read_file(&head_path(path))?;
    loop {
        let ledger = match (read_file(path)?, &head) {
            (Some(bytes), _) => bytes,
            (None, Some(_)) => Vec::new(),
            (None, None) => {
                return Err(ServiceError::file(path)(std::io::ErrorKind::NotFound.into()));
            }
        };
        let now = read_file(&head_path(path))?;
        if now == head || !is_behind(&ledger, head.as_deref()) {
            return Ok((ledger, head));
        }
        head = now;
    }
}

/// Whether a head names a record that a shortened ledger no longer has.
fn is_behind(ledger: &[u8], head: Option<&[u8]>) -> bool {
    let start = start::read(ledger).map_or(0, |(start, _)| start.sequence);
    Head::read(head).newest().is_some_and(|head| head.sequence < start)
}

/// The same of bytes that were read already.
pub(super) fn survey_bytes(
    path: &Path,
    ledger: &[u8],
    head: Option<&[u8]>,
    mut each: impl FnMut(Record),
) -> Result<Survey, ServiceError> {
    let found = scan(path, ledger, &Head::read(head))?;
    for (sequence, payload) in found.numbered() {
        each(decode(path, sequence, payload)?);
    }
    let (records, bytes) = found.head.map_or((0, 0), |end| (end.sequence, end.length));
    let beyond = Extent {
        records: found.end.sequence - records,
        bytes: (ledger.len() as u64).saturating_sub(bytes),
    };
    let head = Extent { records, bytes };
    Ok(Survey { records: found.end.sequence, folded: found.start.sequence, head, beyond })
}

/// The state that a ledger's records fold to, without holding the ledger: for inspection and tests.
///
/// # Errors
/// As [`survey`].
pub fn replay_file(path: &Path) -> Result<State, ServiceError> {
    let mut state = State::default();
    survey(path, |record| state.fold(&record))?;
    Ok(state)
}

//! Reading a ledger through: which records are whole, where it is damaged, and what of it was never
//! synced.

use super::fault::{Damage, Fault};
use super::frame::{self, End, HEADER, MAGIC};
use super::head::Head;
use super::start::{self, SHORTENED};
use crate::ServiceError;
use std::path::Path;

/// A ledger without damage.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    /// What the first record follows: nothing, or of a shortened ledger the last record that its
    /// snapshot stands for.
    pub start: End,
    /// The whole records' payloads, in order.
    pub records: Vec<&'a [u8]>,
    /// Where they end.
    pub end: End,
    /// What follows them: the rest of an append that never returned.
    pub tail: &'a [u8],
    /// How far the head says that it was synced; none before the first opening has ended.
    pub head: Option<End>,
    /// Whether the file begins as it should; if not, it has nothing in it yet.
    pub begun: bool,
}

/// Reads a ledger's bytes through.
///
/// # Errors
/// Something that was synced is no longer there as it was; or this is not a ledger of this version.
pub(super) fn scan<'a>(
    path: &Path,
    ledger: &'a [u8],
    head: &Head,
) -> Result<Scan<'a>, ServiceError> {
    let damaged = |damage| ServiceError::Damaged { path: path.to_owned(), damage };
    let mut scan = Scan::nothing(head);
    if let Some((start, frames)) = start::read(ledger) {
        (scan.start, scan.end, scan.tail, scan.begun) = (start, start, frames, true);
    } else if !is_unborn(ledger) {
        return Err(match scan.head {
            None if !ledger.starts_with(SHORTENED) => foreign(path, ledger),
            _ => damaged(Damage { at: 0, sequence: 0, fault: Fault::Magic }),
        });
    }
    scan.through(head).map_err(damaged)?;
    Ok(scan)
}

/// Whether it is as a crash can leave it that came before the first record: cut, or zero where it
/// was not written yet.
fn is_unborn(ledger: &[u8]) -> bool {
    ledger.len() <= MAGIC.len()
        && ledger.iter().zip(MAGIC).all(|(byte, wanted)| byte == wanted || *byte == 0)
}

/// The error for a file that is not a ledger of this version.
fn foreign(path: &Path, bytes: &[u8]) -> ServiceError {
    if bytes.starts_with(b"USPXLED1") {
        return ServiceError::OldLedger(path.to_owned());
    }
    ServiceError::NotALedger(path.to_owned())
}

impl<'a> Scan<'a> {
    fn nothing(head: &Head) -> Self {
        let start = End::start();
        let head = head.newest();
        Self { start, records: Vec::new(), end: start, tail: &[], head, begun: false }
    }

    /// The payloads with their records' numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u64, &'a [u8])> {
        (self.start.sequence + 1..).zip(self.records.iter().copied())
    }

    /// All that was synced must be whole; after it, whatever is.
    fn through(&mut self, head: &Head) -> Result<(), Damage> {
        if self.start.sequence > 0 {
            self.past_the_snapshot()?;
        }
        if let Some(synced) = self.head.filter(|synced| *synced != self.start) {
            self.up_to(&synced)?;
        }
        while self.step().is_ok() {}
        if self.head.is_some() || (head.is_unborn() && self.is_empty()) {
            return Ok(());
        }
        Err(self.damage(if head.is_missing() { Fault::HeadMissing } else { Fault::HeadBroken }))
    }

    /// A snapshot was synced before it took the place of what it stands for, whatever the head says:
    /// that may still name the last record before it, in the file that was there.
    fn past_the_snapshot(&mut self) -> Result<(), Damage> {
        self.step().map_err(|_| self.damage(Fault::Snapshot))?;
        let start = self.start;
        let is_start = |end: &End| (end.sequence, end.hash) == (start.sequence, start.hash);
        self.head = self.head.map(|head| if is_start(&head) { start } else { head });
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.tail.is_empty()
    }

    fn up_to(&mut self, synced: &End) -> Result<(), Damage> {
        while self.end.sequence < synced.sequence {
            self.step().map_err(|fault| self.damage(cut_short(fault, &self.end, synced)))?;
        }
        if self.end == *synced { Ok(()) } else { Err(self.damage_of_last(Fault::OtherHead)) }
    }

    /// Takes the next record.
    fn step(&mut self) -> Result<(), Fault> {
        let (payload, rest, end) = frame::take(self.tail, &self.end)?;
        self.records.push(payload);
        (self.tail, self.end) = (rest, end);
        Ok(())
    }

    /// Damage of the record that should come next.
    fn damage(&self, fault: Fault) -> Damage {
        Damage { at: self.end.length, sequence: self.end.sequence + 1, fault }
    }

    /// Damage that concerns the last record read.
    fn damage_of_last(&self, fault: Fault) -> Damage {
        let frame = self.records.last().map_or(0, |payload| HEADER + payload.len());
        Damage { at: self.end.length - frame as u64, sequence: self.end.sequence, fault }
    }
}

/// A length beyond the end of the file is right, and the file too short, where the head has room
/// for it.
fn cut_short(fault: Fault, end: &End, synced: &End) -> Fault {
    match fault {
        Fault::Length { bytes }
            if end.length + HEADER as u64 + u64::from(bytes) <= synced.length =>
        {
            Fault::Cut
        }
        fault => fault,
    }
}

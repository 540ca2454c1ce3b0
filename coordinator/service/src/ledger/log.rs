//! The ledger as a log of bytes: opening it, mending what a crash left, appending.
//!
//! Frames are written and synced before the head names them, so a head never promises what is not
//! on the disk.

use super::disk::{Disk, Which};
use super::frame::{self, End, MAGIC};
use super::head::{self, Head, Slot};
use super::scan::{Scan, scan};
use crate::ServiceError;
use std::io;

/// An open log.
#[derive(Debug)]
pub(super) struct Log<D> {
    disk: D,
    end: End,
    slot: Slot,
    /// An append has failed: what is on the disk is not known until it is read again.
    failed: bool,
}

impl<D: Disk> Log<D> {
    /// Opens or begins a log and hands over every whole record with its number. Only when all were
    /// taken is anything mended.
    ///
    /// # Errors
    /// It is damaged, or not a log of this version; `each` fails; the disk does.
    pub fn open(
        mut disk: D,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), ServiceError>,
    ) -> Result<Self, ServiceError> {
        let head = Head::read(disk.read(Which::Head)?.as_deref());
        let bytes = disk.read(Which::Ledger)?.unwrap_or_default();
        let found = scan(disk.path(), &bytes, &head)?;
        for (sequence, payload) in (1..).zip(&found.records) {
            each(sequence, payload)?;
        }
        let mut log = Self { disk, end: found.end, slot: head.free_slot(), failed: false };
        log.mend(&found)?;
        Ok(log)
    }

    /// The number of the last record; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.end.sequence
    }

    /// Appends records and returns when they are on the disk, and the head says so.
    ///
    /// # Errors
    /// Where they may not be; the log then takes no more until it is opened again.
    pub fn append<T: AsRef<[u8]>>(&mut self, payloads: &[T]) -> Result<(), ServiceError> {
        if self.failed {
            return Err(
                self.refusal(io::ErrorKind::Other, "an append failed before: open it again")
            );
        }
        let (mut bytes, mut end) = (Vec::new(), self.end);
        for payload in payloads {
            let next = frame::put(&mut bytes, &end, payload.as_ref());
            end = next
                .ok_or_else(|| self.refusal(io::ErrorKind::InvalidInput, "a record is too long"))?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.failed = true;
        self.disk.write(Which::Ledger, self.end.length, &bytes)?;
        self.disk.sync(Which::Ledger)?;
        self.end = end;
        self.write_head()?;
        self.failed = false;
        Ok(())
    }

    fn refusal(&self, kind: io::ErrorKind, why: &str) -> ServiceError {
        ServiceError::file(self.disk.path())(io::Error::new(kind, why))
    }

    /// Brings both files to where an append leaves them.
    fn mend(&mut self, found: &Scan<'_>) -> Result<(), ServiceError> {
        if !found.begun {
            self.disk.cut(0)?;
            self.disk.write(Which::Ledger, 0, MAGIC)?;
        } else if !found.tail.is_empty() {
            self.cut_off(found.tail)?;
        }
        // Records beyond the head may be here without being on the disk, and so may the files'
        // names.
        self.disk.sync(Which::Ledger)?;
        if found.head != Some(found.end) {
            self.write_head()?;
        }
        self.disk.sync_names()
    }

    /// An append that never returned promised nothing; still nothing is thrown away that cannot be
    /// looked at later.
    fn cut_off(&mut self, tail: &[u8]) -> Result<(), ServiceError> {
        let next = self.end.sequence + 1;
        let copy = self.disk.set_aside(next, tail)?;
        self.disk.cut(self.end.length)?;
        let (ledger, copy) = (self.disk.path().display(), copy.display());
        tracing::warn!(%ledger, record = next, bytes = tail.len(), %copy, "cut off an append that a crash tore");
        Ok(())
    }

    fn write_head(&mut self) -> Result<(), ServiceError> {
        self.disk.write(Which::Head, self.slot.at(), &head::encode(&self.end))?;
        self.disk.sync(Which::Head)?;
        self.slot = self.slot.other();
        Ok(())
    }
}

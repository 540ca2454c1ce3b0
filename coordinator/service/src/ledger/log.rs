//! The ledger as a log of bytes: opening it, mending what a crash left, appending.
//!
//! Frames are written and synced before the head names them, so a head never promises what is not
//! on the disk.

use super::disk::{Disk, Which};
use super::frame::{self, End, MAGIC};
use super::head::{self, Head, Slot};
use super::scan::{Scan, scan};
use super::start;
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
        for (sequence, payload) in found.numbered() {
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

    /// Whether it takes records: not after an error that left open what is on the disk.
    pub fn is_sound(&self) -> bool {
        !self.failed
    }

    /// Begins the log anew with `snapshot` as the record after the last; what it stands for is kept
    /// beside it until the next time. On the disk there is the old log or the new one, whole,
    /// whatever happens: the new one is synced before it takes the old one's name, and the head of
    /// the old one is right for both.
    ///
    /// # Errors
    /// The snapshot is too long, or the disk fails; the log goes on as it was where it
    /// [is sound](Self::is_sound).
    pub fn shorten(&mut self, snapshot: &[u8]) -> Result<(), ServiceError> {
        self.check_sound()?;
        let mut bytes = start::shortened(&self.end);
        let start = End { length: bytes.len() as u64, ..self.end };
        let end = frame::put(&mut bytes, &start, snapshot).ok_or_else(|| self.too_long())?;
        if let Err(error) = self.prepare(&bytes) {
            // A full disk is not to stay full of it.
            self.disk.drop_next()?;
            return Err(error);
        }
        self.failed = true;
        self.disk.put_next()?;
        self.disk.sync_names()?;
        self.end = end;
        self.write_head()?;
        self.failed = false;
        Ok(())
    }

    fn prepare(&mut self, next: &[u8]) -> Result<(), ServiceError> {
        self.disk.write_next(next)?;
        self.disk.sync_next()?;
        self.disk.keep_before()
    }

    /// Appends records and returns when they are on the disk, and the head says so.
    ///
    /// # Errors
    /// Where they may not be; the log then takes no more until it is opened again.
    pub fn append<T: AsRef<[u8]>>(&mut self, payloads: &[T]) -> Result<(), ServiceError> {
        self.check_sound()?;
        let (mut bytes, mut end) = (Vec::new(), self.end);
        for payload in payloads {
            let next = frame::put(&mut bytes, &end, payload.as_ref());
            end = next.ok_or_else(|| self.too_long())?;
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

    fn check_sound(&self) -> Result<(), ServiceError> {
        match self.failed {
            true => {
                Err(self.refusal(io::ErrorKind::Other, "an append failed before: open it again"))
            }
            false => Ok(()),
        }
    }

    fn too_long(&self) -> ServiceError {
        self.refusal(io::ErrorKind::InvalidInput, "a record is too long")
    }

    fn refusal(&self, kind: io::ErrorKind, why: &str) -> ServiceError {
        ServiceError::file(self.disk.path())(io::Error::new(kind, why))
    }

    /// Brings both files to where an append leaves them.
    fn mend(&mut self, found: &Scan<'_>) -> Result<(), ServiceError> {
        self.disk.drop_next()?;
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

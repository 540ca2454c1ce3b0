//! The ledger: an append-only file of records, each durable before anything follows from it (invariants 1 and 3).
//!
//! ```text
//! USPXLED1 | length u32 LE | BLAKE3 of the payload, 8 bytes | payload (MessagePack record) | length | …
//! ```
//!
//! A crash can only tear the last record; it is cut off when the ledger is opened. Damage before that is an error: a
//! ledger that lost its middle would replay to another mask without saying so.

use crate::ServiceError;
use fs4::fs_std::FileExt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use uspx_colony::{Record, State};

const MAGIC: &[u8; 8] = b"USPXLED1";
const FRAME: usize = 12;
/// No record is longer, in bytes; a length beyond it is damage.
const MAX_RECORD: usize = 256 << 20;

/// An open ledger. One process holds it at a time.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Opens or begins the ledger at `path` and hands every record, in order, to `each`.
    ///
    /// # Errors
    /// Another process holds it; it is damaged; it is no ledger; the file cannot be read or written.
    pub fn open(path: &Path, mut each: impl FnMut(Record)) -> Result<Self, ServiceError> {
        let fail = || ServiceError::file(path);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(fail())?;
        if !FileExt::try_lock_exclusive(&file).map_err(fail())? {
            return Err(ServiceError::Locked(path.to_owned()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail())?;
        if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            file.set_len(0).map_err(fail())?;
            file.rewind().map_err(fail())?;
            file.write_all(MAGIC).and_then(|()| file.sync_all()).map_err(fail())?;
            sync_folder(path)?;
            return Ok(Self { path: path.to_owned(), file });
        }
        let end = replay(path, &bytes, &mut each)?;
        if end < bytes.len() {
            tracing::warn!(ledger = %path.display(), torn = bytes.len() - end, "cut off a record that a crash tore");
            file.set_len(end as u64).and_then(|()| file.sync_all()).map_err(fail())?;
        }
        file.seek(SeekFrom::Start(end as u64)).map_err(fail())?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends records and returns when they are on the disk.
    ///
    /// # Errors
    /// Where they are not; the colony's state must then be dropped and replayed.
    pub fn append(&mut self, records: &[Record]) -> Result<(), ServiceError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for record in records {
            let payload = rmp_serde::to_vec_named(record)?;
            bytes.extend((payload.len() as u32).to_le_bytes());
            bytes.extend(checksum(&payload));
            bytes.extend(payload);
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(ServiceError::file(&self.path))
    }
}

/// The state that a ledger's records fold to, without holding the ledger: for inspection and tests.
///
/// # Errors
/// As [`Ledger::open`], but for the lock.
pub fn replay_file(path: &Path) -> Result<State, ServiceError> {
    let bytes = std::fs::read(path).map_err(ServiceError::file(path))?;
    let mut state = State::default();
    replay(path, &bytes, &mut |record| state.fold(&record))?;
    Ok(state)
}

/// Hands over every whole record and returns where they end.
fn replay(path: &Path, bytes: &[u8], each: &mut dyn FnMut(Record)) -> Result<usize, ServiceError> {
    let mut at = MAGIC.len();
    if !bytes.starts_with(MAGIC) {
        return Err(ServiceError::NotALedger(path.to_owned()));
    }
    while let Some(frame) = bytes.get(at..at + FRAME) {
        let damaged = || ServiceError::Damaged { path: path.to_owned(), at: at as u64 };
        let (length, sum) = frame.split_at(4);
        let length = u32::from_le_bytes(length.try_into().map_err(|_| damaged())?) as usize;
        if length > MAX_RECORD {
            return Err(damaged());
        }
        let Some(payload) = bytes.get(at + FRAME..at + FRAME + length) else { break };
        let last = at + FRAME + length == bytes.len();
        if checksum(payload) != *sum {
            // A torn write of the last record may have its length but not its bytes.
            if last { break } else { return Err(damaged()) }
        }
        let record = rmp_serde::from_slice(payload).map_err(|_| ServiceError::NotALedger(path.to_owned()))?;
        each(record);
        at += FRAME + length;
    }
    Ok(at)
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    for (place, byte) in sum.iter_mut().zip(blake3::hash(payload).as_bytes()) {
        *place = *byte;
    }
    sum
}

/// A new file is only there after a crash if its folder says so.
fn sync_folder(path: &Path) -> Result<(), ServiceError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(ServiceError::file(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_colony::Ending;

    fn record(n: u64) -> Record {
        Record::Ended { ending: Ending::Failed(format!("record {n}")) }
    }

    fn all(path: &Path) -> Result<Vec<Record>, ServiceError> {
        let mut records = Vec::new();
        Ledger::open(path, |r| records.push(r)).map(|_| records)
    }

    #[test]
    fn what_was_appended_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        for n in 0..3 {
            Ledger::open(&path, |_| {}).unwrap().append(&[record(n)]).unwrap();
        }
        assert_eq!(all(&path).unwrap(), vec![record(0), record(1), record(2)]);
    }

    #[test]
    fn a_torn_last_record_is_cut_off_wherever_the_tear_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        Ledger::open(&path, |_| {}).unwrap().append(&[record(1)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        Ledger::open(&path, |_| {}).unwrap().append(&[record(2)]).unwrap();
        let both = std::fs::read(&path).unwrap();
        for torn in whole.len()..both.len() {
            std::fs::write(&path, &both[..torn]).unwrap();
            assert_eq!(all(&path).unwrap(), vec![record(1)], "torn at {torn}");
            Ledger::open(&path, |_| {}).unwrap().append(&[record(3)]).unwrap();
            assert_eq!(all(&path).unwrap(), vec![record(1), record(3)]);
        }
    }

    #[test]
    fn damage_in_the_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        Ledger::open(&path, |_| {}).unwrap().append(&[record(1), record(2)]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[30] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(all(&path), Err(ServiceError::Damaged { at: 8, .. })));
        std::fs::write(&path, b"something else").unwrap();
        assert!(matches!(all(&path), Err(ServiceError::NotALedger(_))));
    }

    #[test]
    fn one_process_holds_it_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let held = Ledger::open(&path, |_| {}).unwrap();
        assert!(matches!(all(&path), Err(ServiceError::Locked(_))));
        drop(held);
        assert!(all(&path).is_ok());
    }
}

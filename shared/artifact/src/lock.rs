//! One writer a folder: a lock that the system takes back when its holder dies, however it dies.

use crate::error::ArtifactError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

const FILE_NAME: &str = ".lock";

/// The lock on a folder that is pulled into; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct FolderLock(File);

impl FolderLock {
    /// Takes the lock, or says at once who has it.
    pub(crate) fn take(folder: &Path) -> Result<Self, ArtifactError> {
        let path = folder.join(FILE_NAME);
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(ArtifactError::io("open the lock", &path))?;
        match file.try_lock() {
            Ok(()) => {
                note_pid(&mut file).map_err(ArtifactError::io("write the lock", &path))?;
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => {
                Err(ArtifactError::Locked { folder: folder.to_owned(), pid: read_pid(&mut file) })
            }
            Err(TryLockError::Error(error)) => Err(ArtifactError::io("lock", &path)(error)),
        }
    }
}

impl Drop for FolderLock {
    /// The file stays: removing it would let two processes lock two files of one name.
    fn drop(&mut self) {
        if let Err(error) = self.0.set_len(0).and_then(|()| self.0.unlock()) {
            tracing::debug!(%error, "the lock goes with the file's handle");
        }
    }
}

fn note_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

/// Only for the message: `None` where it is not written yet, or the system lets nobody read a
/// locked file.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let Err(ArtifactError::Locked { pid, .. }) = FolderLock::take(folder.path()) else {
            panic!("not locked")
        };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        assert!(FolderLock::take(folder.path()).is_ok());
    }
}

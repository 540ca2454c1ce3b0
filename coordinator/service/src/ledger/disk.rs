//! What a ledger asks of a disk, as single steps: a test can let the machine die after each of
//! them.

use crate::ServiceError;
use fs4::fs_std::FileExt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The two files of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Ledger,
    Head,
}

/// Where a ledger lies.
pub(super) trait Disk {
    /// The ledger's path, for messages.
    fn path(&self) -> &Path;
    /// A file's bytes; none where it is missing.
    fn read(&mut self, which: Which) -> Result<Option<Vec<u8>>, ServiceError>;
    /// Writes bytes at a place. They may be lost, torn or zero until the file is synced.
    fn write(&mut self, which: Which, at: u64, bytes: &[u8]) -> Result<(), ServiceError>;
    /// Shortens the ledger.
    fn cut(&mut self, length: u64) -> Result<(), ServiceError>;
    /// Returns when all that was written to a file is on the disk.
    fn sync(&mut self, which: Which) -> Result<(), ServiceError>;
    /// Returns when the files' names are on the disk.
    fn sync_names(&mut self) -> Result<(), ServiceError>;
    /// Writes what is to take the ledger's place.
    fn write_next(&mut self, bytes: &[u8]) -> Result<(), ServiceError>;
    /// Returns when that is on the disk.
    fn sync_next(&mut self) -> Result<(), ServiceError>;
    /// Keeps ledger and head as they are beside them, in the place of those kept before.
    fn keep_before(&mut self) -> Result<(), ServiceError>;
    /// Puts in the ledger's place what was written for it.
    fn put_next(&mut self) -> Result<(), ServiceError>;
    /// Forgets what was to take the ledger's place, if there is any.
    fn drop_next(&mut self) -> Result<(), ServiceError>;
    /// Makes a durable copy of what was found from record `sequence` on, and says where.
    fn set_aside(&mut self, sequence: u64, bytes: &[u8]) -> Result<PathBuf, ServiceError>;
    /// Makes durable copies of both files as they were found, and says where the ledger's is.
    fn set_all_aside(
        &mut self,
        ledger: &[u8],
        head: Option<&[u8]>,
    ) -> Result<PathBuf, ServiceError>;
}

/// The path of the head file beside the ledger at `path`: whoever moves the one moves the other
/// too.
pub fn head_path(path: &Path) -> PathBuf {
    beside(path, ".head")
}

/// The path beside the ledger at `path` of the ledger that a snapshot shortened: whoever wants to go
/// back puts it, and the head beside it, in the ledger's place.
pub fn before_path(path: &Path) -> PathBuf {
    beside(path, ".before")
}

fn next_path(path: &Path) -> PathBuf {
    beside(path, ".next")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file's bytes; none where it is missing.
pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, ServiceError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ServiceError::file(path)(error)),
    }
}

/// A ledger in a folder, held for this process alone.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    ledger: File,
    head: Option<File>,
    /// What is to take the ledger's place.
    next: Option<File>,
}

impl Folder {
    /// Holds the ledger at `path`, which it begins where there is none.
    pub fn hold(path: &Path) -> Result<Self, ServiceError> {
        Self::lock(path, || open(path))
    }

    /// The same where there must be one.
    pub fn hold_existing(path: &Path) -> Result<Self, ServiceError> {
        let existing = || OpenOptions::new().read(true).write(true).open(path);
        Self::lock(path, || existing().map_err(ServiceError::file(path)))
    }

    /// The same of a file that `open` opens at `path`.
    pub fn lock(
        path: &Path,
        open: impl Fn() -> Result<File, ServiceError>,
    ) -> Result<Self, ServiceError> {
        loop {
            let ledger = open()?;
            take(path, &ledger)?;
            // Between the two its holder may have put a shorter one in its place, and gone.
            if is_at(path, &ledger).map_err(ServiceError::file(path))? {
                return Ok(Self { path: path.to_owned(), ledger, head: None, next: None });
            }
        }
    }

    fn path_of(&self, which: Which) -> PathBuf {
        match which {
            Which::Ledger => self.path.clone(),
            Which::Head => head_path(&self.path),
        }
    }

    fn file(&mut self, which: Which) -> Result<&mut File, ServiceError> {
        match (which, &mut self.head) {
            (Which::Ledger, _) => Ok(&mut self.ledger),
            (Which::Head, Some(head)) => Ok(head),
            (Which::Head, none) => Ok(none.insert(open(&head_path(&self.path))?)),
        }
    }
}

impl Disk for Folder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self, which: Which) -> Result<Option<Vec<u8>>, ServiceError> {
        read_file(&self.path_of(which))
    }

    fn write(&mut self, which: Which, at: u64, bytes: &[u8]) -> Result<(), ServiceError> {
        let path = self.path_of(which);
        let file = self.file(which)?;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(bytes))
            .map_err(ServiceError::file(path))
    }

    fn cut(&mut self, length: u64) -> Result<(), ServiceError> {
        self.ledger.set_len(length).map_err(ServiceError::file(&self.path))
    }

    fn sync(&mut self, which: Which) -> Result<(), ServiceError> {
        let path = self.path_of(which);
        self.file(which)?.sync_data().map_err(ServiceError::file(path))
    }

    fn sync_names(&mut self) -> Result<(), ServiceError> {
        sync_folder(folder_of(&self.path))
    }

    fn write_next(&mut self, bytes: &[u8]) -> Result<(), ServiceError> {
        let path = next_path(&self.path);
        let mut next = open(&path)?;
        // Held before it has the ledger's name: nobody else opens it in between.
        take(&path, &next)?;
        let written = next.set_len(0).and_then(|()| next.write_all(bytes));
        self.next = Some(next);
        written.map_err(ServiceError::file(path))
    }

    fn sync_next(&mut self) -> Result<(), ServiceError> {
        let synced = self.next.as_ref().map_or(Ok(()), File::sync_all);
        synced.map_err(ServiceError::file(next_path(&self.path)))
    }

    fn keep_before(&mut self) -> Result<(), ServiceError> {
        let (before, head) = (before_path(&self.path), self.read(Which::Head)?);
        for kept in [&before, &head_path(&before)] {
            remove(kept)?;
        }
        // A second name costs no room; not every file system has them.
        if std::fs::hard_link(&self.path, &before).is_err() {
            let bytes = self.read(Which::Ledger)?.unwrap_or_default();
            write_new(&before, &bytes).map_err(ServiceError::file(&before))?;
        }
        let kept = head_path(&before);
        write_new(&kept, &head.unwrap_or_default()).map_err(ServiceError::file(&kept))?;
        self.sync_names()
    }

    fn put_next(&mut self) -> Result<(), ServiceError> {
        let path = next_path(&self.path);
        let Some(next) = self.next.take() else {
            return Err(ServiceError::file(path)(ErrorKind::NotFound.into()));
        };
        std::fs::rename(&path, &self.path).map_err(ServiceError::file(path))?;
        self.ledger = next;
        Ok(())
    }

    fn drop_next(&mut self) -> Result<(), ServiceError> {
        self.next = None;
        remove(&next_path(&self.path))
    }

    fn set_aside(&mut self, sequence: u64, bytes: &[u8]) -> Result<PathBuf, ServiceError> {
        let again = |copy| if copy == 1 { String::new() } else { format!("-{copy}") };
        let name = |copy| beside(&self.path, &format!(".tail-{sequence}{}", again(copy)));
        let path = copied(name, bytes)?;
        self.sync_names()?;
        Ok(path)
    }

    fn set_all_aside(
        &mut self,
        ledger: &[u8],
        head: Option<&[u8]>,
    ) -> Result<PathBuf, ServiceError> {
        let damaged = |copy| beside(&self.path, &format!(".damaged-{copy}"));
        let path = copied(damaged, ledger)?;
        if let Some(head) = head {
            let beside_it = |copy| {
                if copy == 1 { head_path(&path) } else { beside(&path, &format!(".head-{copy}")) }
            };
            copied(beside_it, head)?;
        }
        self.sync_names()?;
        Ok(path)
    }
}

/// Locks the file of a ledger for this process alone.
fn take(path: &Path, ledger: &File) -> Result<(), ServiceError> {
    match FileExt::try_lock_exclusive(ledger).map_err(ServiceError::file(path))? {
        true => Ok(()),
        false => Err(ServiceError::Locked(path.to_owned())),
    }
}

/// Whether a path still names an open file.
fn is_at(path: &Path, file: &File) -> std::io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<(), ServiceError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(ServiceError::file(path)(error)),
        _ => Ok(()),
    }
}

/// The folder that a file lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns when the names in a folder are on the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), ServiceError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(ServiceError::file(folder))
}

fn open(path: &Path) -> Result<File, ServiceError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(ServiceError::file(path))
}

/// A new file with these bytes, on the disk; no other is overwritten.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all())
}

/// A new file with these bytes, on the disk, under the first of the names that is free: no other is
/// overwritten.
fn copied(name: impl Fn(u32) -> PathBuf, bytes: &[u8]) -> Result<PathBuf, ServiceError> {
    let mut copy = 1;
    loop {
        let path = name(copy);
        match write_new(&path, bytes) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => copy += 1,
            Err(error) => return Err(ServiceError::file(path)(error)),
        }
    }
}

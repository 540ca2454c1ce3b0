//! A coordinator's state as one file, to go on with on another machine.
//!
//! State is what cannot be made again: the ledger, its head, and the owner's name where there is
//! one. Derived are `mask.json` (written from the ledger on import), `status.json` (about workers
//! that are alive), `scratch` (a release under way, built again); copies of torn tails and damaged
//! ledgers, and the ledger that a snapshot stands for, are for people and stay behind.

use super::archive::{self, Content};
use super::disk::{Folder, folder_of, read_file, sync_folder};
use super::survey::survey_bytes;
use super::{FILE_NAME, Survey, survey};
use crate::ServiceError;
use crate::status::write_file;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Write};
use std::path::Path;
use tempfile::NamedTempFile;
use uspx_colony::State;
use uspx_domain::Digest;
use uspx_runtime::folders;

/// The files that are state, in the order in which an import writes them. The ledger comes last: a
/// head without its ledger is refused as damage, never begun anew.
pub(super) const NAMES: [&str; 3] = ["owner.id", "ledger.head", FILE_NAME];

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The ledger's records.
    pub records: u64,
    /// The files, as they are in the archive.
    pub files: Vec<Part>,
    /// The digest of the state that the ledger replays to: the same on both machines where uspx is.
    pub state: Digest,
}

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name in the state folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash.
    pub blake3: Digest,
}

/// Writes the state in the folder `state` into `file`. The ledger is held meanwhile.
///
/// # Errors
/// A coordinator holds the ledger; there is none, or it is damaged; `file` exists or cannot be
/// written.
pub fn export(state: &Path, file: &Path) -> Result<Moved, ServiceError> {
    let path = state.join(FILE_NAME);
    let _held = Folder::hold_existing(&path)?;
    let mut replayed = State::default();
    let found = survey(&path, |record| replayed.fold(&record))?;
    let mut contents = Vec::new();
    for name in NAMES {
        let bytes = read_file(&state.join(name))?;
        contents.extend(bytes.map(|bytes| Content { name: name.to_owned(), bytes }));
    }
    let bytes = archive::write(found.records, &contents).map_err(ServiceError::file(file))?;
    create(file, &bytes).map_err(ServiceError::file(file))?;
    sync_folder(folder_of(file))?;
    moved(found, &contents, &replayed)
}

/// Begins the folder `state` with what [`export`] wrote into `file`. Nothing is written before all
/// of it is verified; a crash leaves a folder that no coordinator starts on, and that the same
/// import completes.
///
/// # Errors
/// The folder holds a ledger; the file is damaged, or not an export; a record in it is not one that
/// this version reads; a file cannot be read or written.
pub fn import(file: &Path, state: &Path) -> Result<Moved, ServiceError> {
    let (records, contents) = archive::read(file)?;
    let bytes = |name| contents.iter().find(|c| c.name == name).map(|c| c.bytes.as_slice());
    let mut replayed = State::default();
    let ledger = bytes(FILE_NAME).unwrap_or_default();
    let found = survey_bytes(file, ledger, bytes("ledger.head"), |r| replayed.fold(&r));
    let found = found.map_err(|error| archive::damaged(file, 0, error))?;
    if found.records != records {
        let reason = format!("it announces {records} records, its ledger has {}", found.records);
        return Err(ServiceError::Archive { path: file.to_owned(), at: 0, reason });
    }
    folders::make_private(state).map_err(ServiceError::file(state))?;
    free(state, &contents)?;
    for Content { name, bytes } in &contents {
        place(&state.join(name), bytes)?;
        sync_folder(state)?;
    }
    sync_folder(folder_of(state))?;
    write_mask(state, &replayed)?;
    moved(found, &contents, &replayed)
}

fn moved(found: Survey, contents: &[Content], state: &State) -> Result<Moved, ServiceError> {
    let state = state.digest()?;
    let files = contents.iter().map(Content::part).collect();
    Ok(Moved { records: found.records, files, state })
}

/// Refuses a folder that holds a ledger, or anything of one that is not this import's own.
fn free(state: &Path, contents: &[Content]) -> Result<(), ServiceError> {
    for name in NAMES {
        let path = state.join(name);
        let ours = contents.iter().find(|c| c.name == name && name != FILE_NAME);
        let found = read_file(&path)?;
        if found.is_some_and(|found| ours.is_none_or(|ours| ours.bytes != found)) {
            return Err(ServiceError::Occupied(path));
        }
    }
    Ok(())
}

/// Puts a file in place whole and synced, unless it is there already.
fn place(path: &Path, bytes: &[u8]) -> Result<(), ServiceError> {
    match create(path, bytes) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // An import that was interrupted had put it there; of a ledger that cannot be said.
            let same = path.file_name() != Some(FILE_NAME.as_ref())
                && read_file(path)?.as_deref() == Some(bytes);
            if same { Ok(()) } else { Err(ServiceError::Occupied(path.to_owned())) }
        }
        Err(error) => Err(ServiceError::file(path)(error)),
    }
}

/// A new file, on the disk before it has its name; another is never overwritten.
fn create(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = NamedTempFile::new_in(folder_of(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map(drop).map_err(|error| error.error)
}

/// The mask is derived, but the next one may be long in coming.
fn write_mask(state: &Path, replayed: &State) -> Result<(), ServiceError> {
    let Some(mask) = replayed.mask() else { return Ok(()) };
    let path = state.join("mask.json");
    let text =
        serde_json::to_vec_pretty(&mask.mask).map_err(|e| ServiceError::file(&path)(e.into()))?;
    write_file(&path, &text)
}

//! Which release of a folder is in use: `current`, switched in one step.
//!
//! On Unix a symbolic link to `releases/<n>`, so that other programs can be given paths below
//! `current/`. Where the system or the file system has none (Windows, exFAT), a text file of that
//! name with the same words. Either is put in place by a rename.

use crate::error::ArtifactError;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use tempfile::NamedTempFile;
use uspx_domain::ReleaseNumber;

const NAME: &str = "current";

/// The release in use; `None` if there is none, or the pointer makes no sense.
pub(crate) fn read(dest: &Path) -> Option<ReleaseNumber> {
    let path = dest.join(NAME);
    let target = match fs::read_link(&path) {
        Ok(target) => target.to_str()?.to_owned(),
        Err(_) => fs::read_to_string(&path).ok()?,
    };
    target.trim().strip_prefix("releases/")?.parse().ok()
}

/// Makes a release the one in use.
pub(crate) fn write(dest: &Path, release: ReleaseNumber) -> Result<(), ArtifactError> {
    let path = dest.join(NAME);
    let target = format!("releases/{release}");
    let switched = link(dest, &target, &path).or_else(|why| {
        tracing::debug!(%why, "no symbolic link here: a text file instead");
        text(dest, &target, &path)
    });
    switched.and_then(|()| sync_folder(dest)).map_err(ArtifactError::io("switch", &path))
}

#[cfg(unix)]
fn link(dest: &Path, target: &str, path: &Path) -> io::Result<()> {
    let beside = dest.join(".current.new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &beside)?;
    fs::rename(&beside, path)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &str, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Puts a text file in its place in one step, synced.
pub(crate) fn text(dest: &Path, target: &str, path: &Path) -> io::Result<()> {
    let mut beside = NamedTempFile::new_in(dest)?;
    writeln!(beside, "{target}")?;
    beside.as_file().sync_all()?;
    beside.persist(path).map(drop).map_err(|e| e.error)
}

/// Makes renames within a folder last through a power cut, where the system can.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_replaced() {
        let dest = tempfile::tempdir().unwrap();
        let dest = dest.path();
        assert_eq!(read(dest), None);
        text(dest, "releases/3", &dest.join(NAME)).unwrap();
        assert_eq!(read(dest), Some(3));
        write(dest, 4).unwrap();
        assert_eq!(read(dest), Some(4));
        write(dest, 5).unwrap();
        assert_eq!(read(dest), Some(5));
    }
}

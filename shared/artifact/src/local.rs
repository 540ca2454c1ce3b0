//! The folder that releases are pulled into: what lies there, whether it is whole, and clearing out
//! old ones.
//!
//! ```text
//! current        the release in use (see pointer.rs)
//! releases/<n>/  whole, verified releases, each with its manifest.json
//! .partial/<n>/  a pull under way or interrupted
//! .lock          held while a pull runs
//! rolled-back-from  the newest release that was gone back from (see rolled_back.rs)
//! ```

use crate::blob_file::hash_file;
use crate::error::ArtifactError;
use crate::lock::FolderLock;
use crate::manifest::{FILE_NAME, decode_manifest};
use crate::pointer;
use std::fs;
use std::path::{Path, PathBuf};
use uspx_domain::{BlobRef, FileEntry, Manifest, ReleaseNumber};

/// A release on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRelease {
    /// Its folder.
    pub folder: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Which release.
    pub release: ReleaseNumber,
    /// Files read.
    pub files: usize,
    /// Bytes that they should have.
    pub bytes: u64,
    /// What is wrong; empty if all is well. Pulling with [`crate::PullOptions::repair`] mends it.
    pub damaged: Vec<DamagedFiles>,
}

/// A file that is not what the manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFiles {
    /// Its path within the release.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

pub(crate) fn release_folder(dest: &Path, release: ReleaseNumber) -> PathBuf {
    dest.join("releases").join(release.to_string())
}

pub(crate) fn partial_root(dest: &Path) -> PathBuf {
    dest.join(".partial")
}

/// Where a file of a release lies. The manifest was checked, so the path stays within the folder.
pub(crate) fn file_path(folder: &Path, entry: &FileEntry) -> PathBuf {
    entry.path.split('/').fold(folder.to_owned(), |path, part| path.join(part))
}

/// The release in use, if one was pulled.
///
/// # Errors
/// A manifest that is missing or damaged.
pub fn current(dest: &Path) -> Result<Option<LocalRelease>, ArtifactError> {
    pointer::read(dest).map(|release| read_release(dest, release)).transpose()
}

/// The releases that lie in the folder, oldest first.
///
/// # Errors
/// A folder that cannot be read.
pub fn local_releases(dest: &Path) -> Result<Vec<ReleaseNumber>, ArtifactError> {
    let root = dest.join("releases");
    if !root.exists() {
        return Ok(Vec::new());
    }
    let items = fs::read_dir(&root).map_err(ArtifactError::io("read the folder", &root))?;
    let mut releases: Vec<ReleaseNumber> =
        items.filter_map(|item| item.ok()?.file_name().to_str()?.parse().ok()).collect();
    releases.sort_unstable();
    Ok(releases)
}

/// A local release with its manifest; its files are not looked at.
///
/// # Errors
/// A manifest that is missing or damaged.
pub fn read_release(dest: &Path, release: ReleaseNumber) -> Result<LocalRelease, ArtifactError> {
    let folder = release_folder(dest, release);
    let path = folder.join(FILE_NAME);
    let bytes = fs::read(&path).map_err(ArtifactError::io("read", &path))?;
    let unusable = |reason| ArtifactError::Manifest { key: path.display().to_string(), reason };
    let manifest = decode_manifest(&bytes).map_err(unusable)?;
    Ok(LocalRelease { folder, manifest })
}

/// Reads the release in use through and compares every file with the manifest. Blocking, as long as
/// reading it all takes.
///
/// # Errors
/// [`ArtifactError::NothingPulled`]; a manifest that cannot be read. DamagedFiles of files is in
/// the report.
pub fn verify(dest: &Path) -> Result<VerifyReport, ArtifactError> {
    let local = current(dest)?.ok_or_else(|| ArtifactError::NothingPulled(dest.to_owned()))?;
    let files = &local.manifest.files;
    Ok(VerifyReport {
        release: local.manifest.release,
        files: files.len(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        damaged: files.iter().filter_map(|entry| damage(&local.folder, entry)).collect(),
    })
}

/// What is wrong with a file, from its content.
pub(crate) fn damage(folder: &Path, entry: &FileEntry) -> Option<DamagedFiles> {
    let reason = match hash_file(&file_path(folder, entry)) {
        Ok(found) if found == (BlobRef { digest: entry.digest, bytes: entry.bytes }) => {
            return None;
        }
        Ok(found) if found.bytes != entry.bytes => {
            format!("it has {} bytes instead of {}", found.bytes, entry.bytes)
        }
        Ok(found) => format!("its hash is {} instead of {}", found.digest, entry.digest),
        Err(error) => format!("it cannot be read: {error}"),
    };
    Some(DamagedFiles { path: entry.path.clone(), reason })
}

/// Whether a file is there with its right length; its content is not read.
pub(crate) fn has_length(folder: &Path, entry: &FileEntry) -> bool {
    fs::metadata(file_path(folder, entry))
        .is_ok_and(|meta| meta.is_file() && meta.len() == entry.bytes)
}

/// Removes old releases: the one in use and the newest `keep` others stay. Returns those removed.
///
/// # Errors
/// A pull that runs in the folder; the disk's.
pub fn prune(dest: &Path, keep: usize) -> Result<Vec<ReleaseNumber>, ArtifactError> {
    let _lock = FolderLock::take(dest)?;
    let in_use = pointer::read(dest);
    let others: Vec<_> = local_releases(dest)?.into_iter().filter(|n| Some(*n) != in_use).collect();
    let old: Vec<_> = others.iter().copied().rev().skip(keep).collect();
    for release in &old {
        remove(&release_folder(dest, *release))?;
    }
    Ok(old)
}

/// Removes a folder and what is in it; one that is not there is no error.
pub(crate) fn remove(folder: &Path) -> Result<(), ArtifactError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ArtifactError::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

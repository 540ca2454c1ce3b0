//! The steps of a pull on this machine's disk: what is here, a place to gather, and the switch at
//! the end. All blocking.

use crate::error::ArtifactError;
use crate::local::{self, LocalRelease};
use crate::manifest::{FILE_NAME, encode_manifest};
use crate::pull_report::Checked;
use crate::{plain, pointer, stamp};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use uspx_domain::Manifest;

/// Whether a release lies in the folder, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Here {
    /// As far as it was checked.
    Whole(Checked),
    /// Not at all, or damaged.
    Wanting,
}

/// Looks for a release. All of it is read, unless its files are as they were when that was last
/// done; `thorough` reads it all the same.
pub(crate) fn look(dest: &Path, wanted: &Manifest, thorough: bool) -> Result<Here, ArtifactError> {
    // One that cannot be read is replaced.
    let Ok(found) = local::read_release(dest, wanted.release) else { return Ok(Here::Wanting) };
    if found.manifest != *wanted {
        let (folder, colony) = (dest.to_owned(), found.manifest.colony);
        return Err(ArtifactError::Foreign { folder, release: wanted.release, colony });
    }
    if !thorough && stamp::fits(&found.folder, wanted) {
        return Ok(Here::Whole(Checked::Unchanged));
    }
    let right = |entry| {
        local::has_length(&found.folder, entry) && local::damage(&found.folder, entry).is_none()
    };
    if !wanted.files.iter().all(right) {
        return Ok(Here::Wanting);
    }
    note(&found.folder, wanted);
    Ok(Here::Whole(Checked::Hashed))
}

/// Without a stamp the next pull reads the files again, and nothing else is lost.
pub(crate) fn note(folder: &Path, manifest: &Manifest) {
    if let Err(error) = stamp::write(folder, manifest) {
        tracing::debug!(%error, "no stamp");
    }
}

/// The releases that are here and readable, for what they share with the new one.
pub(crate) fn readable(dest: &Path) -> Vec<LocalRelease> {
    let releases = local::local_releases(dest).unwrap_or_default();
    releases.into_iter().filter_map(|release| local::read_release(dest, release).ok()).collect()
}

/// The folder to gather a release in: as an interrupted pull of the very same manifest left it, or
/// else empty.
pub(crate) fn partial(dest: &Path, manifest: &Manifest) -> Result<PathBuf, ArtifactError> {
    let folder = local::partial_root(dest).join(manifest.release.to_string());
    let path = folder.join(FILE_NAME);
    plain::no_links(&local::partial_root(dest), &path)?;
    let bytes = manifest_bytes(manifest, &path)?;
    if fs::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(folder);
    }
    local::remove(&folder)?;
    fs::create_dir_all(&folder).map_err(ArtifactError::io("create the folder", &folder))?;
    let written = File::create(&path)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
    written.map_err(ArtifactError::io("write", &path))?;
    Ok(folder)
}

fn manifest_bytes(manifest: &Manifest, path: &Path) -> Result<Vec<u8>, ArtifactError> {
    encode_manifest(manifest).map_err(|e| ArtifactError::Manifest {
        key: path.display().to_string(),
        reason: e.to_string(),
    })
}

/// Checks a gathered file as a whole and has it on the disk.
pub(crate) fn seal(folder: &Path, manifest: &Manifest, at: usize) -> Result<(), ArtifactError> {
    let Some(entry) = manifest.files.get(at) else { return Ok(()) };
    if let Some(damage) = local::damage(folder, entry) {
        let key = crate::keys::manifest(manifest.release).to_string();
        let reason = format!("file `{}`: every chunk is right, but {}", damage.path, damage.reason);
        return Err(ArtifactError::Manifest { key, reason });
    }
    let path = local::file_path(folder, entry);
    let file = plain::open(File::options().write(true), &path, "save")?;
    file.sync_all().map_err(ArtifactError::io("save", &path))
}

/// Moves a gathered, sealed release into its place. A damaged one of that number makes room.
pub(crate) fn settle_in(
    dest: &Path,
    gathered: &Path,
    manifest: &Manifest,
) -> Result<(), ArtifactError> {
    let place = local::release_folder(dest, manifest.release);
    let root = dest.join("releases");
    fs::create_dir_all(&root).map_err(ArtifactError::io("create the folder", &root))?;
    if place.exists() {
        let aside = local::partial_root(dest).join(format!("damaged-{}", manifest.release));
        local::remove(&aside)?;
        fs::rename(&place, &aside).map_err(ArtifactError::io("move away", &place))?;
    }
    note(gathered, manifest);
    sync_folders(gathered, manifest)?;
    fs::rename(gathered, &place).map_err(ArtifactError::io("complete", &place))?;
    pointer::sync_folder(&root).map_err(ArtifactError::io("save", &root))
}

/// The names of the files, too, must outlast a power cut before the release counts as whole.
fn sync_folders(gathered: &Path, manifest: &Manifest) -> Result<(), ArtifactError> {
    let files = manifest.files.iter().map(|entry| local::file_path(gathered, entry));
    let mut folders: Vec<PathBuf> = files
        .flat_map(|file| {
            file.ancestors()
                .skip(1)
                .take_while(|f| f.starts_with(gathered))
                .map(Path::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    folders.sort();
    folders.dedup();
    folders.iter().try_for_each(|folder| {
        pointer::sync_folder(folder).map_err(ArtifactError::io("save", folder))
    })
}

//! Rolling back: an earlier release is in use again, read through first. What is in the folder needs
//! no store; what is not is pulled.
//!
//! No release is removed, and the switch is the pull's own: a crash leaves either of the two in use,
//! whole.

use crate::error::ArtifactError;
use crate::local::{self, LocalRelease};
use crate::lock::FolderLock;
use crate::progress::OnProgress;
use crate::pull::{self, Aim};
use crate::pull_report::{Checked, PullOptions, PullReport, Pulled};
use crate::rolled_back::rolled_back_from;
use crate::store::Store;
use crate::{install, pointer};
use std::path::Path;
use std::time::Instant;
use uspx_domain::ReleaseNumber;

/// Makes an earlier release of the folder the one in use again; without being told which, the newest
/// before the one in use. Blocking: all of it is read.
///
/// # Errors
/// Any leaves the release in use as it was. [`ArtifactError::NotWhole`] where it is missing or
/// damaged, which [`rollback`] mends; [`ArtifactError::NothingPulled`],
/// [`ArtifactError::NothingBefore`], [`ArtifactError::NotEarlier`], [`ArtifactError::Locked`]; the
/// disk's.
pub fn rollback_here(dest: &Path, to: Option<ReleaseNumber>) -> Result<PullReport, ArtifactError> {
    let start = Instant::now();
    let (_lock, way) = begin(dest, to)?;
    let local = whole(dest, way.to)?;
    install::note(&local.folder, &local.manifest);
    let outcome = if way.in_use == way.to { Pulled::UpToDate } else { Pulled::Switched };
    pull::point(dest, way.to, Some(way.from))?;
    let bytes = local.manifest.files.iter().map(|file| file.bytes).sum();
    Ok(PullReport {
        outcome,
        checked: Checked::Hashed,
        release: way.to,
        previous: Some(way.in_use),
        rolled_back_from: Some(way.from),
        folder: local.folder,
        files: local.manifest.files.len(),
        bytes,
        fetched: 0,
        resumed: bytes,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The same of a release that the folder no longer has, or has damaged: it is fetched from the
/// store.
///
/// # Errors
/// As [`rollback_here`] and [`crate::pull`].
pub async fn rollback(
    store: &Store,
    dest: &Path,
    to: Option<ReleaseNumber>,
    tell: OnProgress<'_>,
) -> Result<PullReport, ArtifactError> {
    let start = Instant::now();
    let (_lock, way) = begin(dest, to)?;
    let manifest = store.manifest(way.to).await?.into();
    let aim = Aim { manifest, rolled_back_from: Some(way.from) };
    let options = PullOptions { repair: true, ..PullOptions::default() };
    pull::reach(store, dest, &options, &aim, (start, tell)).await
}

/// From where to where.
struct Way {
    in_use: ReleaseNumber,
    /// The newest release that is gone back from, now or before.
    from: ReleaseNumber,
    to: ReleaseNumber,
}

/// Takes the folder, and finds the way.
fn begin(dest: &Path, to: Option<ReleaseNumber>) -> Result<(FolderLock, Way), ArtifactError> {
    let in_use = || pointer::read(dest).ok_or_else(|| ArtifactError::NothingPulled(dest.into()));
    in_use()?;
    let lock = FolderLock::take(dest)?;
    let in_use = in_use()?;
    let from = rolled_back_from(dest).unwrap_or(in_use);
    let to = match to {
        Some(release) => release,
        None => before(dest, in_use)?,
    };
    if to >= from {
        return Err(ArtifactError::NotEarlier { release: to, from });
    }
    Ok((lock, Way { in_use, from, to }))
}

/// The newest release of the folder that is earlier than the one in use: it was in use once. Else
/// the one before by number, for the store to have.
fn before(dest: &Path, in_use: ReleaseNumber) -> Result<ReleaseNumber, ArtifactError> {
    let here = local::local_releases(dest)?.into_iter().rfind(|release| *release < in_use);
    let by_number = || in_use.checked_sub(1).filter(|release| *release > 0);
    here.or_else(by_number).ok_or(ArtifactError::NothingBefore(in_use))
}

/// A release of the folder, read through.
fn whole(dest: &Path, release: ReleaseNumber) -> Result<LocalRelease, ArtifactError> {
    let fault = |reason| ArtifactError::NotWhole { folder: dest.to_owned(), release, reason };
    if !local::release_folder(dest, release).exists() {
        return Err(fault("it is not there".to_owned()));
    }
    let local = local::read_release(dest, release).map_err(|e| fault(e.to_string()))?;
    if local.manifest.release != release {
        return Err(fault(format!("its manifest is of release {}", local.manifest.release)));
    }
    let damaged = local.manifest.files.iter().find_map(|e| local::damage(&local.folder, e));
    match damaged {
        Some(damage) => Err(fault(format!("{}: {}", damage.path, damage.reason))),
        None => Ok(local),
    }
}

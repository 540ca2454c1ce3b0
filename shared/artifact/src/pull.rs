//! Pulling a release: all of it or nothing, and on from where it was interrupted.

use crate::error::ArtifactError;
use crate::fetch::{self, Job};
use crate::install::{self, Here};
use crate::local;
use crate::lock::FolderLock;
use crate::pointer;
use crate::progress::{Meter, OnProgress};
use crate::pull_report::{Checked, PullOptions, PullReport, Pulled};
use crate::rolled_back::{self, rolled_back_from};
use crate::store::Store;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::task::spawn_blocking;
use uspx_domain::{Manifest, ReleaseNumber};

/// Where a pull is going.
pub(crate) struct Aim {
    pub(crate) manifest: Arc<Manifest>,
    /// What the folder is to remember of being rolled back.
    pub(crate) rolled_back_from: Option<ReleaseNumber>,
}

/// Pulls a release into `dest` and makes it the one in use.
///
/// The release before it stays in its folder (see [`crate::prune`]). A folder that was rolled back
/// ([`crate::rollback`]) stays at the release in use until one is published that is newer than all
/// it was rolled back from. Dropping the future stops the pull; the next one goes on from the chunks
/// that are in place.
///
/// # Errors
/// Any leaves the release in use as it was. [`ArtifactError::Locked`] where another pull runs; the
/// store's, which name the key; [`ArtifactError::Manifest`]; [`ArtifactError::Room`]; the disk's.
pub async fn pull(
    store: &Store,
    dest: &Path,
    options: &PullOptions,
    tell: OnProgress<'_>,
) -> Result<PullReport, ArtifactError> {
    let start = Instant::now();
    std::fs::create_dir_all(dest).map_err(ArtifactError::io("create the folder", dest))?;
    let _lock = FolderLock::take(dest)?;
    let aim = choose(store, dest, options).await?;
    reach(store, dest, options, &aim, (start, tell)).await
}

/// Brings the release and switches to it; the caller holds the folder's lock.
pub(crate) async fn reach(
    store: &Store,
    dest: &Path,
    options: &PullOptions,
    aim: &Aim,
    (start, tell): (Instant, OnProgress<'_>),
) -> Result<PullReport, ArtifactError> {
    let (manifest, previous) = (&aim.manifest, pointer::read(dest));
    let bytes = manifest.files.iter().map(|file| file.bytes).sum();
    let meter = Meter::new(bytes, tell);
    let (outcome, checked) = bring(store, dest, options, aim, &meter).await?;
    let progress = meter.now();
    let report = PullReport {
        outcome,
        checked,
        release: manifest.release,
        previous,
        rolled_back_from: aim.rolled_back_from,
        folder: local::release_folder(dest, manifest.release),
        files: manifest.files.len(),
        bytes,
        fetched: progress.done.saturating_sub(progress.resumed),
        resumed: progress.resumed,
        seconds: start.elapsed().as_secs_f64(),
    };
    tracing::info!(
        release = report.release,
        ?outcome,
        fetched = report.fetched,
        resumed = report.resumed,
        "pulled"
    );
    Ok(report)
}

/// The release to pull. Without being told, a pull never goes back, nor forward to what the folder
/// was rolled back from.
async fn choose(store: &Store, dest: &Path, options: &PullOptions) -> Result<Aim, ArtifactError> {
    let (in_use, left) = (pointer::read(dest), rolled_back_from(dest));
    let release = match options.release {
        Some(release) => release,
        None => newest(store, in_use, left.filter(|_| !options.newest)).await?,
    };
    // Whoever moves elsewhere by name is no longer rolled back.
    let rolled_back_from = left.filter(|_| in_use == Some(release));
    Ok(Aim { manifest: store.manifest(release).await?.into(), rolled_back_from })
}

/// The store's newest release, or the one in use where all newer ones were `left`.
async fn newest(
    store: &Store,
    in_use: Option<ReleaseNumber>,
    left: Option<ReleaseNumber>,
) -> Result<ReleaseNumber, ArtifactError> {
    let none = || ArtifactError::NoRelease { store: store.url().to_owned(), release: None };
    let latest = store.latest().await?.ok_or_else(none)?;
    match (in_use, left) {
        (Some(current), _) if current > latest => Err(ArtifactError::Backwards { latest, current }),
        (Some(current), Some(left)) if latest <= left => Ok(current),
        _ => Ok(latest),
    }
}

async fn bring(
    store: &Store,
    dest: &Path,
    options: &PullOptions,
    aim: &Aim,
    meter: &Meter<'_>,
) -> Result<(Pulled, Checked), ArtifactError> {
    let (manifest, left, repair) = (&aim.manifest, aim.rolled_back_from, options.repair);
    let here = on_disk(dest, manifest, move |dest, manifest| install::look(dest, manifest, repair))
        .await?;
    let outcome = match here {
        Here::Wanting => {
            let gathered = gather(store, dest, options, manifest, meter).await?;
            on_disk(dest, manifest, move |dest, manifest| {
                install::settle_in(dest, &gathered, manifest)
            })
            .await?;
            (Pulled::Fetched, Checked::Hashed)
        }
        Here::Whole(checked) => {
            meter.resumed(meter.now().total);
            if pointer::read(dest) == Some(manifest.release) {
                return Ok((Pulled::UpToDate, checked));
            }
            (Pulled::Switched, checked)
        }
    };
    on_disk(dest, manifest, move |dest, manifest| switch(dest, manifest.release, left)).await?;
    Ok(outcome)
}

/// Makes the release the one in use, and clears away what interrupted pulls left.
fn switch(
    dest: &Path,
    release: ReleaseNumber,
    left: Option<ReleaseNumber>,
) -> Result<(), ArtifactError> {
    point(dest, release, left)?;
    if let Err(error) = local::remove(&local::partial_root(dest)) {
        // The release is in use: what is left behind costs room only.
        tracing::warn!(%error, "could not clear away");
    }
    Ok(())
}

/// Makes the release the one in use; what is to be remembered goes first (see rolled_back.rs).
pub(crate) fn point(
    dest: &Path,
    release: ReleaseNumber,
    left: Option<ReleaseNumber>,
) -> Result<(), ArtifactError> {
    rolled_back::note(dest, left)?;
    pointer::write(dest, release)
}

/// Gets every file of the release into a folder of its own, verified; returns that folder.
async fn gather(
    store: &Store,
    dest: &Path,
    options: &PullOptions,
    manifest: &Arc<Manifest>,
    meter: &Meter<'_>,
) -> Result<PathBuf, ArtifactError> {
    let folder = on_disk(dest, manifest, install::partial).await?;
    let jobs = survey(&folder, manifest, meter).await?;
    let need = jobs.iter().map(|job| job.chunk.bytes).sum();
    let shelf = on_disk(dest, manifest, move |dest, _| {
        enough_room(dest, need)?;
        Ok(fetch::shelf(&install::readable(dest)))
    })
    .await?;
    fetch::fetch_all(store, jobs, &shelf, options.at_once, meter).await?;
    for at in 0..manifest.files.len() {
        on_disk(&folder, manifest, move |folder, manifest| install::seal(folder, manifest, at))
            .await?;
    }
    Ok(folder)
}

/// What is missing, file by file; what an interrupted pull left counts as done.
async fn survey(
    folder: &Path,
    manifest: &Arc<Manifest>,
    meter: &Meter<'_>,
) -> Result<Vec<Job>, ArtifactError> {
    let mut missing = Vec::new();
    for (at, entry) in manifest.files.iter().enumerate() {
        let jobs = on_disk(folder, manifest, move |folder, manifest| {
            manifest
                .files
                .get(at)
                .map_or_else(|| Ok(Vec::new()), |entry| fetch::survey(folder, entry))
        });
        let jobs = jobs.await?;
        let absent = jobs.iter().map(|job| job.chunk.bytes).sum();
        meter.resumed(entry.bytes.saturating_sub(absent));
        missing.extend(jobs);
    }
    Ok(missing)
}

fn enough_room(dest: &Path, need: u64) -> Result<(), ArtifactError> {
    let have =
        fs4::available_space(dest).map_err(ArtifactError::io("ask for the free space of", dest))?;
    if have >= need {
        Ok(())
    } else {
        Err(ArtifactError::Room { folder: dest.to_owned(), need, have })
    }
}

/// Runs a blocking step on the threads meant for that.
async fn on_disk<T: Send + 'static>(
    folder: &Path,
    manifest: &Arc<Manifest>,
    step: impl FnOnce(&Path, &Manifest) -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    let (owned, manifest) = (folder.to_owned(), manifest.clone());
    let done = spawn_blocking(move || step(&owned, &manifest)).await;
    done.map_err(|e| ArtifactError::stopped(folder, e))?
}

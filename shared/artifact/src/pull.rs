//! Pulling a release: all of it or nothing, and on from where it was interrupted.

use crate::error::ArtifactError;
use crate::fetch::{self, Job};
use crate::install::{self, Here};
use crate::local;
use crate::lock::FolderLock;
use crate::pointer;
use crate::progress::{Meter, OnProgress};
use crate::store::Store;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::task::spawn_blocking;
use uspx_domain::{Manifest, ReleaseNumber};

/// How to pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullOptions {
    /// Which release; `None`: the newest.
    pub release: Option<ReleaseNumber>,
    /// Whether to read a release that is here already through, whatever its files look like, and
    /// mend it.
    pub repair: bool,
    /// Chunks under way at once; with the chunks' 4 MiB, the memory that a pull takes.
    pub at_once: usize,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { release: None, repair: false, at_once: 8 }
    }
}

/// What a pull came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulled {
    /// The release was fetched and is in use now.
    Fetched,
    /// It was here already, and is in use now.
    Switched,
    /// It was in use already: nothing was done.
    UpToDate,
}

/// How it is known that the release's files are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// All of them were read and hashed now.
    Hashed,
    /// They have the sizes, times and inodes that they had when they were last hashed; their
    /// content was not read.
    Unchanged,
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq)]
pub struct PullReport {
    /// What it came to.
    pub outcome: Pulled,
    /// What was made sure of.
    pub checked: Checked,
    /// The release in use now.
    pub release: ReleaseNumber,
    /// The one in use before.
    pub previous: Option<ReleaseNumber>,
    /// The release's folder.
    pub folder: PathBuf,
    /// Its files.
    pub files: usize,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes transferred now.
    pub fetched: u64,
    /// Bytes that were here: of an interrupted pull, or the same in another release.
    pub resumed: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Pulls a release into `dest` and makes it the one in use.
///
/// The release before it stays in its folder (see [`crate::prune`]). Dropping the future stops the
/// pull; the next one goes on from the chunks that are in place.
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
    let previous = pointer::read(dest);
    let manifest = Arc::new(choose(store, options.release, previous).await?);
    let bytes = manifest.files.iter().map(|file| file.bytes).sum();
    let meter = Meter::new(bytes, tell);
    let (outcome, checked) = bring(store, dest, options, &manifest, &meter).await?;
    let progress = meter.now();
    let report = PullReport {
        outcome,
        checked,
        release: manifest.release,
        previous,
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

/// The manifest of the release to pull. Without being told, a pull never goes back.
async fn choose(
    store: &Store,
    wanted: Option<ReleaseNumber>,
    in_use: Option<ReleaseNumber>,
) -> Result<Manifest, ArtifactError> {
    if let Some(release) = wanted {
        return store.manifest(release).await;
    }
    let none = || ArtifactError::NoRelease { store: store.url().to_owned(), release: None };
    let latest = store.latest().await?.ok_or_else(none)?;
    match in_use {
        Some(current) if current > latest => Err(ArtifactError::Backwards { latest, current }),
        _ => store.manifest(latest).await,
    }
}

async fn bring(
    store: &Store,
    dest: &Path,
    options: &PullOptions,
    manifest: &Arc<Manifest>,
    meter: &Meter<'_>,
) -> Result<(Pulled, Checked), ArtifactError> {
    let repair = options.repair;
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
    on_disk(dest, manifest, switch).await?;
    Ok(outcome)
}

/// Makes the release the one in use, and clears away what interrupted pulls left.
fn switch(dest: &Path, manifest: &Manifest) -> Result<(), ArtifactError> {
    pointer::write(dest, manifest.release)?;
    if let Err(error) = local::remove(&local::partial_root(dest)) {
        // The release is in use: what is left behind costs room only.
        tracing::warn!(%error, "could not clear away");
    }
    Ok(())
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

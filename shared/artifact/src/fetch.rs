//! The chunks of a pull: which are here already, and getting the others into their places, each
//! verified first.

use crate::error::ArtifactError;
use crate::local::{self, LocalRelease};
use crate::manifest::LONGEST_CHUNK;
use crate::plain;
use crate::progress::{Meter, silent};
use crate::store::Store;
use bytes::Bytes;
use futures::stream::{self, TryStreamExt};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tokio::task::spawn_blocking;
use uspx_domain::{BlobRef, ChunkEntry, Digest, FileEntry};

/// A place in a file.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    path: PathBuf,
    offset: u64,
}

/// A chunk that is still to come, and where it goes.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) chunk: ChunkEntry,
    to: Spot,
}

/// Chunks that lie in releases on this machine, by digest. They are verified when they are taken.
pub(crate) type Shelf = HashMap<Digest, Spot>;

/// Everything that local releases have. Damaged files do no harm: their chunks fail the check and
/// are fetched.
pub(crate) fn shelf(releases: &[LocalRelease]) -> Shelf {
    let mut shelf = Shelf::new();
    for release in releases {
        for entry in &release.manifest.files {
            shelf.extend(
                spots(&local::file_path(&release.folder, entry), entry)
                    .map(|(c, spot)| (c.digest, spot)),
            );
        }
    }
    shelf
}

/// A file's chunks and their places.
fn spots(path: &Path, entry: &FileEntry) -> impl Iterator<Item = (ChunkEntry, Spot)> {
    entry.chunks.iter().scan(0_u64, move |next, chunk| {
        let offset = *next;
        *next = offset.saturating_add(chunk.bytes);
        Some((*chunk, Spot { path: path.to_owned(), offset }))
    })
}

/// Looks at what an interrupted pull left of a file; the chunks that are missing or wrong.
/// Blocking.
pub(crate) fn survey(folder: &Path, entry: &FileEntry) -> Result<Vec<Job>, ArtifactError> {
    let path = local::file_path(folder, entry);
    plain::no_links(folder, &path)?;
    let mut file = open_partial(&path)?;
    wanting(&mut file, &path, entry).map_err(ArtifactError::io("prepare", &path))
}

/// The file as it is, made where it is missing.
fn open_partial(path: &Path) -> Result<File, ArtifactError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(ArtifactError::io("create the folder", parent))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    plain::open(&mut options, path, "prepare")
}

/// The chunks that a file lacks; it is cut where it is too long.
fn wanting(file: &mut File, path: &Path, entry: &FileEntry) -> io::Result<Vec<Job>> {
    if file.metadata()?.len() > entry.bytes {
        file.set_len(entry.bytes)?;
    }
    let mut jobs = Vec::new();
    for (chunk, to) in spots(path, entry) {
        if read_chunk(file, to.offset, &chunk)?.is_none() {
            jobs.push(Job { chunk, to });
        }
    }
    Ok(jobs)
}

/// The chunk at a place of a file, if that is what stands there. A chunk's length was checked with
/// the manifest.
fn read_chunk(file: &mut File, offset: u64, chunk: &ChunkEntry) -> io::Result<Option<Bytes>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut content = Vec::with_capacity(chunk.bytes as usize);
    file.take(chunk.bytes).read_to_end(&mut content)?;
    let right = BlobRef::to(&content) == blob(chunk);
    Ok(right.then(|| content.into()))
}

fn write_chunk(to: &Spot, content: &[u8]) -> Result<(), ArtifactError> {
    let mut file = plain::open(OpenOptions::new().write(true), &to.path, "write")?;
    let written = file.seek(SeekFrom::Start(to.offset)).and_then(|_| file.write_all(content));
    written.map_err(ArtifactError::io("write", &to.path))
}

fn blob(chunk: &ChunkEntry) -> BlobRef {
    BlobRef { digest: chunk.digest, bytes: chunk.bytes }
}

/// Brings every missing chunk into its place, `at_once` at a time. The first error ends it; what is
/// in place stays.
pub(crate) async fn fetch_all(
    store: &Store,
    jobs: Vec<Job>,
    shelf: &Shelf,
    at_once: usize,
    meter: &Meter<'_>,
) -> Result<(), ArtifactError> {
    let jobs = stream::iter(jobs.into_iter().map(Ok));
    jobs.try_for_each_concurrent(at_once.max(1), |job| fetch(store, job, shelf, meter)).await
}

async fn fetch(
    store: &Store,
    job: Job,
    shelf: &Shelf,
    meter: &Meter<'_>,
) -> Result<(), ArtifactError> {
    let bytes = job.chunk.bytes;
    match from_shelf(shelf, job.chunk).await {
        Some(content) => {
            place(job.to, content).await?;
            meter.resumed(bytes);
        }
        None => {
            let content = store.get_blob(&blob(&job.chunk), LONGEST_CHUNK, &silent).await?;
            place(job.to, content).await?;
            meter.moved(bytes);
        }
    }
    Ok(())
}

/// A chunk from a release that is here; `None` sends the caller to the store, whatever the reason.
async fn from_shelf(shelf: &Shelf, chunk: ChunkEntry) -> Option<Bytes> {
    let spot = shelf.get(&chunk.digest)?.clone();
    let read = move || {
        File::open(&spot.path).and_then(|mut file| read_chunk(&mut file, spot.offset, &chunk))
    };
    spawn_blocking(read).await.ok()?.ok()?
}

async fn place(to: Spot, content: Bytes) -> Result<(), ArtifactError> {
    let path = to.path.clone();
    let written = spawn_blocking(move || write_chunk(&to, &content)).await;
    written.map_err(|e| ArtifactError::stopped(&path, e))?
}

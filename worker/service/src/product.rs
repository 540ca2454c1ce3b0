//! What goes into a job and what comes out of it. A job never sees a network, and large blobs are
//! files on this machine's disk: a whole student is never in memory at once.

use crate::error::JobError;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use uspx_domain::{BlobRef, Outcome, Skipped, StoredFile};
use uspx_model::Readable;

/// The blobs that a task names, fetched and verified, each in a file.
#[derive(Debug)]
pub struct Inputs {
    folder: TempDir,
    files: HashMap<BlobRef, PathBuf>,
    kept: Option<Kept>,
    memory: Option<PathBuf>,
}

/// Where a job's state is kept, for when it is interrupted, and may lie from another time.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The file.
    pub file: PathBuf,
    /// How often it is written.
    pub every: Duration,
}

impl Inputs {
    /// None yet; their files go into a folder of their own in `scratch`.
    ///
    /// # Errors
    /// The disk's.
    pub fn new_in(scratch: &Path) -> Result<Self, JobError> {
        std::fs::create_dir_all(scratch)?;
        let (folder, files) = (tempfile::tempdir_in(scratch)?, HashMap::new());
        Ok(Self { folder, files, kept: None, memory: None })
    }

    /// The same for a job whose state is kept.
    #[must_use]
    pub fn keeping(self, kept: Kept) -> Self {
        Self { kept: Some(kept), ..self }
    }

    /// Where the job's state is kept; none where nothing is.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The same for a job that keeps something in this file for others like it.
    #[must_use]
    pub fn remembering(self, file: Option<PathBuf>) -> Self {
        Self { memory: file, ..self }
    }

    /// Where the job keeps something for others like it.
    pub fn memory(&self) -> Option<&Path> {
        self.memory.as_deref()
    }

    /// Where a blob's content is to be put; none where it is there already.
    pub fn place(&mut self, blob: BlobRef) -> Option<PathBuf> {
        if self.files.contains_key(&blob) {
            return None;
        }
        let path = self.folder.path().join(blob.digest.to_string());
        self.files.insert(blob, path.clone());
        Some(path)
    }

    /// The file of a blob.
    ///
    /// # Errors
    /// It was not fetched: the job does not name it, which is a bug.
    pub fn path(&self, blob: &BlobRef) -> Result<&Path, JobError> {
        let missing = || JobError::Task(format!("blob {} was not fetched", blob.digest));
        self.files.get(blob).map(PathBuf::as_path).ok_or_else(missing)
    }

    /// A blob's content.
    ///
    /// # Errors
    /// As [`Inputs::path`]; the disk's.
    pub fn get(&self, blob: &BlobRef) -> Result<Bytes, JobError> {
        Ok(std::fs::read(self.path(blob)?)?.into())
    }
}

/// A blob that a job made.
#[derive(Debug)]
pub enum Blob {
    /// In memory.
    Bytes(Bytes),
    /// In a file of the product's scratch folder, with what it is.
    File(PathBuf, BlobRef),
}

/// What a job brought: the outcome, the blobs to store before it is told, and the prompts that it
/// is not about.
#[derive(Debug)]
pub struct Product {
    /// The outcome.
    pub outcome: Outcome,
    /// Blobs that it names.
    pub blobs: Vec<Blob>,
    /// Where its files lie.
    pub scratch: Option<TempDir>,
    /// The task's prompts that the model cannot run.
    pub skipped: Vec<Skipped>,
    /// How many of the others the tokenizer reads otherwise as a whole text than in use.
    pub seams: u32,
    /// What was run for it.
    pub ran: Ran,
}

/// How much was run, each prompt counted as often as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ran {
    /// Runs of a prompt.
    pub prompts: u64,
    /// Tokens of theirs.
    pub tokens: u64,
}

impl Product {
    /// Numbers about the prompts that the model can run.
    pub(crate) fn measured(outcome: Outcome, prompts: Readable) -> Self {
        let Readable { sequences, skipped, seams, .. } = prompts;
        let times = if let Outcome::Losses(rows) = &outcome { rows.len() as u64 } else { 1 };
        let tokens: usize = sequences.iter().map(|s| s.ids.len()).sum();
        let ran = Ran { prompts: times * sequences.len() as u64, tokens: times * tokens as u64 };
        Self { outcome, blobs: Vec::new(), scratch: None, skipped, seams, ran }
    }

    /// An outcome that names these files of a folder, which goes with it.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn with_folder(
        scratch: TempDir,
        paths: impl IntoIterator<Item = String>,
        outcome: impl FnOnce(Vec<StoredFile>) -> Outcome,
    ) -> Result<Self, JobError> {
        let (mut files, mut blobs) = (Vec::new(), Vec::new());
        for path in paths {
            let file = scratch.path().join(&path);
            let blob = BlobRef::to_all_of(std::fs::File::open(&file)?)?;
            files.push(StoredFile { path, blob });
            blobs.push(Blob::File(file, blob));
        }
        Ok(Self { blobs, scratch: Some(scratch), ..outcome(files).into() })
    }

    /// An outcome that names one blob.
    pub(crate) fn with_blob(outcome: Outcome, blob: Bytes) -> Self {
        Self { blobs: vec![Blob::Bytes(blob)], ..outcome.into() }
    }
}

impl From<Outcome> for Product {
    fn from(outcome: Outcome) -> Self {
        Self::measured(outcome, Readable::default())
    }
}

impl From<&JobError> for Product {
    fn from(error: &JobError) -> Self {
        Outcome::Failed(error.reason().into()).into()
    }
}

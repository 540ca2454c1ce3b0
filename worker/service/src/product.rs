//! What goes into a job and what comes out of it. Blobs are bytes: a job never sees a network.

use crate::error::JobError;
use bytes::Bytes;
use std::collections::HashMap;
use uspx_domain::{BlobRef, Failure, Outcome, Skipped};
use uspx_model::Readable;

/// The blobs that a task names, fetched and verified.
#[derive(Debug, Default)]
pub struct Inputs(pub HashMap<BlobRef, Bytes>);

impl Inputs {
    /// A blob's content.
    ///
    /// # Errors
    /// It was not fetched: the job does not name it, which is a bug.
    pub fn get(&self, blob: &BlobRef) -> Result<&Bytes, JobError> {
        let missing = || JobError::Task(format!("blob {} was not fetched", blob.digest));
        self.0.get(blob).ok_or_else(missing)
    }
}

/// What a job brought: the outcome, the blobs to store before it is told, and the prompts that it
/// is not about.
#[derive(Debug)]
pub struct Product {
    /// The outcome.
    pub outcome: Outcome,
    /// Blobs that it names.
    pub blobs: Vec<Bytes>,
    /// The task's prompts that the model cannot run.
    pub skipped: Vec<Skipped>,
    /// How many of the others the tokenizer reads otherwise as a whole text than in use.
    pub seams: u32,
}

impl Product {
    /// Numbers about the prompts that the model can run.
    pub(crate) fn measured(outcome: Outcome, prompts: Readable) -> Self {
        let Readable { skipped, seams, .. } = prompts;
        Self { outcome, blobs: Vec::new(), skipped, seams }
    }
}

impl From<Outcome> for Product {
    fn from(outcome: Outcome) -> Self {
        Self::measured(outcome, Readable::default())
    }
}

impl From<&JobError> for Product {
    fn from(error: &JobError) -> Self {
        Outcome::Failed(Failure { kind: error.kind(), reason: error.to_string() }).into()
    }
}

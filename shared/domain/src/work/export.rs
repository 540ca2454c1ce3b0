//! Writing a 4-bit student.

use super::Job;
use crate::shape::is_zero;
use crate::{Asked, BlobRef, ExportFormat, Outcome, Refusal, StoredFile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Writes a 4-bit student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Export<P> {
    /// The adapter to merge; none exports the base.
    pub adapter: Option<BlobRef>,
    /// Prompts whose activations calibrate the quantiser, and that the finish learns from.
    pub calibration: Vec<P>,
    /// Passes of the quantisation-aware finish over them; 0 leaves it out, as records from before it do.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub finish: u32,
    /// Label blobs whose prompts and answers the finish learns from, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<BlobRef>,
    /// Into what.
    pub format: ExportFormat,
}

impl<P> Export<P> {
    /// The same on other calibration prompts: on texts instead of their places, say.
    #[must_use]
    pub fn on<Q>(self, calibration: Vec<Q>) -> Export<Q> {
        let Self { adapter, finish, labels, format, .. } = self;
        Export { adapter, calibration, finish, labels, format }
    }
}

impl<P> Job<P> for Export<P> {
    fn name(&self) -> &'static str {
        "export"
    }

    fn prompts(&self) -> &[P] {
        &self.calibration
    }

    fn blobs(&self) -> Vec<BlobRef> {
        self.adapter.into_iter().chain(self.labels.iter().copied()).collect()
    }

    fn check(&self, _: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal> {
        let Outcome::Exported { files } = outcome else { return Err(Refusal::Kind("export")) };
        paths(files)
    }
}

/// No path is empty, repeated, or leads out of its folder.
pub(super) fn paths(files: &[StoredFile]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    let plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0'])
    };
    let fits = |f: &StoredFile| f.path.split('/').all(plain);
    let all = files.iter().all(|f| fits(f) && seen.insert(f.path.as_str()));
    (all && !files.is_empty()).then_some(()).ok_or(Refusal::Path)
}

//! A release: the folder of a student that passed the gate, and its way into the store.
//!
//! What stands in the store already is compared with the order first, and so it is after every
//! failure: wherever an earlier try broke off, the next one goes on from there.

use crate::ServiceError;
use crate::adapter;
use crate::report::{Report, card};
use crate::status::write_file;
use backon::{ExponentialBuilder, Retryable};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uspx_artifact::{ArtifactError, Draft, Store, silent};
use uspx_colony::ReleaseOrder;
use uspx_domain::{
    ADAPTER_CONFIG, ADAPTER_TENSORS, BlobRef, Manifest, ReleaseNumber, StoredFile, limits,
};

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It stands in the store.
    Published,
    /// Somebody else's release stands there that the student was not judged against: nothing was
    /// published, and the order stays open.
    Held {
        /// The newest release.
        newest: ReleaseNumber,
    },
}

/// Publishes one order, however long the store takes.
pub(crate) struct Publisher {
    pub(crate) store: Store,
    pub(crate) colony: String,
    /// Where the folder is built.
    pub(crate) scratch: PathBuf,
    pub(crate) order: ReleaseOrder,
    /// What the campaign found.
    pub(crate) report: Report,
}

impl Publisher {
    /// Builds the folder and publishes it. Failures of the store and the disk are waited out.
    ///
    /// # Errors
    /// What is wrong with the student itself, which no waiting mends.
    pub(crate) async fn run(&self) -> Result<Outcome, ServiceError> {
        // What an earlier order of that number left there.
        self.patiently(|| async { self.clear() }).await?;
        let outcome = self.patiently(|| self.publish()).await?;
        // The store has it all now; what is left over of the folder costs disk and nothing else.
        if let Err(error) = self.clear() {
            tracing::debug!(%error, "a scratch folder stays behind");
        }
        Ok(outcome)
    }

    async fn patiently<T, F: Future<Output = Result<T, ServiceError>>>(
        &self,
        step: impl FnMut() -> F,
    ) -> Result<T, ServiceError> {
        let release = self.order.release;
        step.retry(patience())
            .when(|error| !is_final(error))
            .notify(|error, after| {
                tracing::warn!(%error, ?after, release, "not published yet: it is tried again");
            })
            .await
    }

    fn folder(&self) -> PathBuf {
        self.scratch.join(format!("release-{}", self.order.release))
    }

    fn clear(&self) -> Result<(), ServiceError> {
        let folder = self.folder();
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(ServiceError::file(folder)(error))
            }
            _ => Ok(()),
        }
    }

    async fn publish(&self) -> Result<Outcome, ServiceError> {
        if let Some(outcome) = self.found().await? {
            return Ok(outcome);
        }
        let folder = self.folder();
        self.build(&folder).await?;
        match self.store.publish(&folder, &self.draft(), &silent).await {
            Ok(_) => Ok(Outcome::Published),
            // Another's, or this very one: the answer to its creation may have been lost.
            Err(ArtifactError::Superseded { found, .. }) => {
                Ok(self.found().await?.unwrap_or(Outcome::Held { newest: found }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The number that decides is the one the student was judged against, not today's newest.
    fn draft(&self) -> Draft {
        Draft {
            colony: self.colony.clone(),
            teacher: self.order.teacher,
            base: self.order.base,
            previous: self.order.previous,
        }
    }

    /// What the store says of the order's number, once everything begun there is finished; none
    /// where it is still free.
    async fn found(&self) -> Result<Option<Outcome>, ServiceError> {
        let Some(newest) = self.store.settle().await? else { return Ok(None) };
        if newest < self.order.release {
            return Ok(None);
        }
        let manifest = self.store.manifest(self.order.release).await?;
        let ours = is_of(&manifest, &self.order);
        Ok(Some(if ours { Outcome::Published } else { Outcome::Held { newest } }))
    }

    async fn build(&self, folder: &Path) -> Result<(), ServiceError> {
        let order = &self.order;
        for (format, files) in &order.formats {
            let Some(name) = format.row().folder else { continue };
            for StoredFile { path, blob } in files {
                self.fetch(blob, folder.join(name).join(path), limits::STUDENT_FILE).await?;
            }
        }
        let tensors = folder.join("adapter").join(ADAPTER_TENSORS);
        self.fetch(&order.adapter, tensors.clone(), limits::ADAPTER).await?;
        json(&tensors.with_file_name(ADAPTER_CONFIG), &adapter::config(&tensors)?)?;
        json(&folder.join("mask.json"), &order.mask)?;
        let report = self.report.clone().released(order);
        json(&folder.join("report.json"), &report)?;
        write_file(&folder.join("README.md"), card(&report, order, self.store.url()).as_bytes())
    }

    async fn fetch(&self, blob: &BlobRef, path: PathBuf, most: u64) -> Result<(), ServiceError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(ServiceError::file(parent))?;
        }
        Ok(self.store.get_file(blob, &path, most, &silent).await?)
    }
}

/// The pauses between two tries: they grow to five minutes, and never end.
fn patience() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(300))
        .without_max_times()
}

/// Whether it is the student that is at fault. Everything else has a remedy outside: credentials,
/// room on a disk, a bucket, the network.
fn is_final(error: &ServiceError) -> bool {
    use ArtifactError::{TooLarge, Unfit};
    match error {
        ServiceError::Adapter { .. } => true,
        // An adapter too short for the header that it announces.
        ServiceError::File { source, .. } => source.kind() == ErrorKind::UnexpectedEof,
        ServiceError::Artifact(error) => matches!(error, Unfit { .. } | TooLarge { .. }),
        _ => false,
    }
}

/// Whether a release is what the order asks for.
fn is_of(manifest: &Manifest, order: &ReleaseOrder) -> bool {
    let tensors = format!("adapter/{}", ADAPTER_TENSORS);
    let mut files = manifest.files.iter().filter(|f| f.path == tensors);
    (manifest.release, manifest.previous) == (order.release, order.previous)
        && (manifest.teacher, manifest.base) == (order.teacher, order.base)
        && files.any(|f| (f.digest, f.bytes) == (order.adapter.digest, order.adapter.bytes))
}

fn json(path: &Path, value: &impl Serialize) -> Result<(), ServiceError> {
    let fail = |e: serde_json::Error| ServiceError::file(path)(e.into());
    write_file(path, &serde_json::to_vec_pretty(value).map_err(fail)?)
}

//! What ends a worker, and what ends a job.

use std::path::PathBuf;
use uspx_artifact::ArtifactError;
use uspx_bus::BusError;
use uspx_distill::DistillError;
use uspx_domain::FailureKind;
use uspx_export::ExportError;
use uspx_model::ModelError;
use uspx_wire::WireError;

/// Errors that end the worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A model folder that it was given cannot be used.
    #[error("{folder}: {source}")]
    Model {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: ModelError,
    },
    /// The bus failed for good.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A message cannot be encoded.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The thread that computes has ended.
    #[error("the compute thread has ended: start the worker again")]
    ComputeGone,
    /// The thread that computes cannot be started.
    #[error("the compute thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// Why a job came to nothing. Never quotes a prompt.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The end was asked for.
    #[error("stopped")]
    Stopped,
    /// This worker does not hold the model.
    #[error("model {0} is not on this worker")]
    NoModel(uspx_domain::Fingerprint),
    /// A blob that the task names is missing or damaged.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The model or a probe failed.
    #[error(transparent)]
    Model(ModelError),
    /// Labels or training failed.
    #[error(transparent)]
    Distill(DistillError),
    /// An export failed.
    #[error(transparent)]
    Export(ExportError),
    /// Scratch files cannot be written.
    #[error("scratch files: {0}")]
    Scratch(#[from] std::io::Error),
    /// The task is of a newer uspx than this worker's.
    #[error("{0}")]
    NotSpoken(WireError),
    /// The task makes no sense.
    #[error("{0}")]
    Task(String),
    /// Template or tokenizer failed. Their words may quote a prompt: they are not kept.
    #[error("the chat template or the tokenizer refused a prompt of the task")]
    Chat,
    /// A bug: the work panicked. Its words may quote a prompt: they stand on the worker's standard
    /// error alone.
    #[error("the work panicked, which is a bug: the worker's standard error has the place")]
    Panic,
}

impl JobError {
    /// What is to blame.
    pub fn kind(&self) -> FailureKind {
        if let Self::NotSpoken(_) = self {
            return FailureKind::NotSpoken;
        }
        let passes = match self {
            Self::Stopped | Self::NoModel(_) | Self::Scratch(_) | Self::Panic => true,
            Self::Artifact(e) => e.is_retryable(),
            Self::Model(e) => matches!(e, ModelError::Read { .. }),
            Self::Distill(e) => e.is_retryable(),
            Self::Export(e) => e.is_retryable(),
            Self::NotSpoken(_) | Self::Task(_) | Self::Chat => false,
        };
        if passes { FailureKind::Machine } else { FailureKind::Task }
    }

    /// Whether another try, here or elsewhere, may succeed.
    pub fn is_retryable(&self) -> bool {
        self.kind() != FailureKind::Task
    }
}

impl From<WireError> for JobError {
    fn from(error: WireError) -> Self {
        if error.is_not_spoken() { Self::NotSpoken(error) } else { Self::Task(error.to_string()) }
    }
}

impl From<ModelError> for JobError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Stopped => Self::Stopped,
            ModelError::Chat(_) | ModelError::Template { .. } => Self::Chat,
            other => Self::Model(other),
        }
    }
}

impl From<DistillError> for JobError {
    fn from(error: DistillError) -> Self {
        match error {
            DistillError::Model(inner) => inner.into(),
            other => Self::Distill(other),
        }
    }
}

impl From<ExportError> for JobError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Model(inner) => inner.into(),
            other => Self::Export(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_template_says_of_a_prompt_does_not_leave_the_worker() {
        let said = || ModelError::Chat("the chat template failed: no secrets, please".into());
        let errors: [JobError; 3] =
            [said().into(), DistillError::Model(said()).into(), ExportError::Model(said()).into()];
        for error in errors {
            assert!(!format!("{error} {error:?}").contains("secrets") && !error.is_retryable());
        }
    }

    #[test]
    fn the_systems_reason_is_in_what_the_coordinator_is_told() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = JobError::from(full);
        assert!(error.to_string().contains("no storage space") && error.is_retryable(), "{error}");
    }
}

//! What ends a worker, and what ends a job.

use crate::planning::PlanningError;
use std::path::PathBuf;
use uspx_artifact::ArtifactError;
use uspx_bus::BusError;
use uspx_distill::DistillError;
use uspx_domain::{FailureKind, FailureReason, WorkerId};
use uspx_export::ExportError;
use uspx_model::ModelError;
use uspx_model::budget::TRAINED;
use uspx_sae::SaeError;
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
    /// The state folder cannot be used.
    #[error("{folder}: {source}: choose another state folder (--state)")]
    State {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What the worker may use of its machine cannot be used so.
    #[error(transparent)]
    Machine(#[from] PlanningError),
    /// Another worker holds the state folder.
    #[error(
        "another worker on this machine uses the state folder {0}: is this one running already?"
    )]
    Busy(PathBuf),
    /// Another worker has the name.
    #[error(
        "a worker named {worker} is in the colony already ({other}): give this one another --name"
    )]
    Taken {
        /// The name.
        worker: WorkerId,
        /// Who has it, for people.
        other: String,
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
    /// The broker does not take an answer just now.
    #[error(transparent)]
    Bus(BusError),
    /// A blob that the task names is missing or damaged.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The model or a probe failed.
    #[error(transparent)]
    Model(ModelError),
    /// There is no memory for a training of floats.
    #[error("{0}: or hold the student in NF4 (campaign.distil.nf4 = true)")]
    Trained(ModelError),
    /// Labels or training failed.
    #[error(transparent)]
    Distill(DistillError),
    /// An export failed.
    #[error(transparent)]
    Export(ExportError),
    /// A sparse autoencoder could not be trained.
    #[error(transparent)]
    Sae(SaeError),
    /// Scratch files cannot be written.
    #[error("scratch files: {0}")]
    Scratch(#[from] std::io::Error),
    /// The task is of a newer uspx than this worker's.
    #[error("{0}")]
    NotSpoken(WireError),
    /// The task makes no sense.
    #[error("{0}")]
    Task(String),
    /// None of the task's prompts can be run.
    #[error("no prompt is left: {0}")]
    NoPromptLeft(uspx_domain::SkipGroup),
    /// Template or tokenizer failed. Their words may quote a prompt: they are not kept.
    #[error("the chat template or the tokenizer refused a prompt of the task")]
    Chat,
    /// A bug: the work panicked. Its words may quote a prompt: they stand on the worker's standard
    /// error alone.
    #[error("the work panicked, which is a bug: the worker's standard error has the place")]
    Panic,
}

impl JobError {
    /// The reason, by name: what the coordinator is told. The words stay here.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Stopped => FailureReason::Stopped,
            Self::NoModel(_) => FailureReason::NoModel,
            Self::Bus(_) => FailureReason::StoreUnreachable,
            Self::Artifact(error) => of_store(error),
            Self::Model(error) | Self::Trained(error) => of_model(error),
            Self::Distill(error) => of_training(error),
            Self::Export(error) => of_export(error),
            Self::Sae(error) => of_sae(error),
            Self::Scratch(_) => FailureReason::Scratch,
            Self::NotSpoken(_) => FailureReason::NotSpoken,
            Self::Task(_) => FailureReason::Senseless,
            Self::NoPromptLeft(_) => FailureReason::NoPromptLeft,
            Self::Chat => FailureReason::Chat,
            Self::Panic => FailureReason::Panic,
        }
    }

    /// What is to blame.
    pub fn kind(&self) -> FailureKind {
        self.reason().kind()
    }
}

fn of_store(error: &ArtifactError) -> FailureReason {
    match error {
        ArtifactError::Denied { .. } => FailureReason::StoreDenied,
        ArtifactError::NotFound { .. }
        | ArtifactError::NoBucket { .. }
        | ArtifactError::NoFolder(_) => FailureReason::StoreLacks,
        ArtifactError::Corrupt { .. } => FailureReason::BlobDamaged,
        ArtifactError::TooLarge { .. } => FailureReason::Senseless,
        ArtifactError::Io { .. } | ArtifactError::Room { .. } => FailureReason::Scratch,
        _ => FailureReason::StoreUnreachable,
    }
}

fn of_model(error: &ModelError) -> FailureReason {
    match error {
        ModelError::Stopped => FailureReason::Stopped,
        ModelError::Budget { .. } => FailureReason::NoMemory,
        error if error.is_out_of_memory() => FailureReason::NoMemory,
        ModelError::Read { .. } | ModelError::Malformed { .. } | ModelError::Tensor { .. } => {
            FailureReason::ModelUnreadable
        }
        ModelError::Chat(_) | ModelError::Template { .. } => FailureReason::Chat,
        ModelError::Candle(error) => of_tensors(error),
        _ => FailureReason::Senseless,
    }
}

/// candle tells a driver's errors by text only, and those of a file inside others of its own.
fn of_tensors(error: &candle_core::Error) -> FailureReason {
    let text = error.to_string().to_lowercase();
    let device = ["cuda", "metal", "cublas"].iter().any(|name| text.contains(name));
    match device {
        true => FailureReason::Device,
        false if text.contains("os error") => FailureReason::Scratch,
        false => FailureReason::Unsupported,
    }
}

fn of_training(error: &DistillError) -> FailureReason {
    match error {
        DistillError::Model(error) => of_model(error),
        DistillError::Labels(_) | DistillError::LabelsVersion(_) => FailureReason::BadLabels,
        DistillError::Adapter(_) | DistillError::OtherBase { .. } => FailureReason::BadAdapter,
        DistillError::Empty(_) => FailureReason::NoPromptLeft,
        DistillError::Diverged { .. } | DistillError::Outer(_) => FailureReason::NotFinite,
        DistillError::Told(_) => FailureReason::BadAdapter,
        DistillError::Recipe(_) => FailureReason::Senseless,
        DistillError::State { .. } => FailureReason::Scratch,
    }
}

fn of_export(error: &ExportError) -> FailureReason {
    match error {
        ExportError::Model(error) => of_model(error),
        ExportError::Tensor(error) => of_tensors(error),
        ExportError::File { .. } => FailureReason::Scratch,
        ExportError::NotFinite(_) => FailureReason::NotFinite,
        ExportError::Mismatch { .. } | ExportError::OtherTokens { .. } => FailureReason::ReadBack,
        _ => FailureReason::Unsupported,
    }
}

fn of_sae(error: &SaeError) -> FailureReason {
    match error {
        SaeError::Model(error) => of_model(error),
        SaeError::File { .. } | SaeError::Format { .. } | SaeError::OtherTraining { .. } => {
            FailureReason::Scratch
        }
        SaeError::Empty(_) => FailureReason::NoPromptLeft,
        SaeError::Diverged { .. } => FailureReason::NotFinite,
        SaeError::Recipe(_)
        | SaeError::OtherModel { .. }
        | SaeError::OtherWidth { .. }
        | SaeError::Unserved(_)
        | SaeError::Skips(_) => FailureReason::Senseless,
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
            other @ ModelError::Budget { what: TRAINED, .. } => Self::Trained(other),
            other => Self::Model(other),
        }
    }
}

impl From<PlanningError> for JobError {
    fn from(error: PlanningError) -> Self {
        match error {
            PlanningError::Model(inner) => inner.into(),
            other => Self::Model(ModelError::Request(other.to_string())),
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

impl From<SaeError> for JobError {
    fn from(error: SaeError) -> Self {
        match error {
            SaeError::Model(inner) => inner.into(),
            other => Self::Sae(other),
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
            assert!(!format!("{error} {error:?}").contains("secrets"));
            assert_eq!(error.reason(), FailureReason::Chat);
        }
    }

    /// Faults that were seen, and who is to blame for them.
    #[test]
    fn a_machine_s_faults_are_told_from_the_task_s() {
        let store = |name: &str| name.to_owned();
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let denied = ArtifactError::Denied {
            store: store("s"),
            key: "k".into(),
            source: "read-only".into(),
        };
        let machine: Vec<JobError> = vec![
            full().into(),
            denied.into(),
            ArtifactError::NotFound { store: store("wrong"), key: "k".into() }.into(),
            ArtifactError::NoFolder("/nowhere".into()).into(),
            ExportError::File { action: "write", path: "f".into(), source: full() }.into(),
            ModelError::Candle(candle_core::Error::Msg("CUDA_ERROR_OUT_OF_MEMORY".into())).into(),
            ModelError::Candle(candle_core::Error::Msg("cuda: illegal address".into())).into(),
            ExportError::Tensor(std::io::Error::from_raw_os_error(28).into()).into(),
            ModelError::Budget { what: "trained", needed: 2, given: 1 }.into(),
            JobError::NoModel(uspx_domain::Fingerprint(uspx_domain::Digest::of(b"m"))),
        ];
        for error in &machine {
            assert_eq!(error.kind(), FailureKind::Machine, "{error}");
        }
        let task: Vec<JobError> = vec![
            DistillError::Labels("cut short".into()).into(),
            DistillError::Diverged { loss: f32::NAN, step: 1, rate: 0.1 }.into(),
            ModelError::Request("no such layer".into()).into(),
            JobError::Panic,
        ];
        for error in &task {
            assert_eq!(error.kind(), FailureKind::Task, "{error}");
        }
    }
}

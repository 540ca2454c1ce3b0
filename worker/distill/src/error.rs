//! What can go wrong between a label and an adapter.

use crate::together::outer::OuterError;
use crate::together::sparse::SparseError;
use std::path::PathBuf;
use uspx_domain::Fingerprint;
use uspx_model::ModelError;

/// Every error of this crate. None of them quotes a prompt.
#[derive(Debug, thiserror::Error)]
pub enum DistillError {
    /// The model failed, or the keeper stopped the work.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A label blob is not one, or is damaged.
    #[error("these are not usable labels: {0}. Label the prompts again")]
    Labels(String),
    /// A label blob was written by a newer uspx.
    #[error(
        "labels of format version {0} are not known here (2 is the newest): update this machine"
    )]
    LabelsVersion(u32),
    /// An adapter file is not one, or is damaged.
    #[error("this is not a usable adapter: {0}. Distil again, or fetch the file again")]
    Adapter(String),
    /// An adapter made for another base model.
    #[error("the adapter was trained on base {found}, this model is {here}: load that base")]
    OtherBase {
        /// The base it was trained on.
        found: Fingerprint,
        /// The model at hand.
        here: Fingerprint,
    },
    /// A recipe that cannot be followed.
    #[error("the recipe cannot be followed: {0}")]
    Recipe(String),
    /// The kept state of a training cannot be used, or not be written.
    #[error("{}: {reason}: name another file, or delete this one to train anew", .file.display())]
    State {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nothing to learn from, or nothing to judge by.
    #[error("no {0} labels with an answer: at least one is needed")]
    Empty(&'static str),
    /// A machine's word in a shared training cannot be made, or is not one.
    #[error("a machine's part of the training is not usable: {0}")]
    Told(#[from] SparseError),
    /// The common start does not move.
    #[error("the common start cannot go on: {0}. Lower the learning rate")]
    Outer(#[from] OuterError),
    /// The loss is no longer a number.
    #[error("the loss became {loss} at step {step}: lower the learning rate (it is {rate})")]
    Diverged {
        /// The loss.
        loss: f32,
        /// The step, from 1.
        step: u32,
        /// The peak learning rate.
        rate: f32,
    },
}

impl DistillError {
    /// Whether the same work may succeed at another time or on another machine.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Model(ModelError::Stopped | ModelError::Read { .. }))
    }

    /// Whether the keeper asked the work to end.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Model(ModelError::Stopped))
    }
}

impl From<candle_core::Error> for DistillError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}

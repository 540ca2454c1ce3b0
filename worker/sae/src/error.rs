//! What can go wrong between activations and a file of features.

use crate::Place;
use std::path::{Path, PathBuf};
use uspx_model::ModelError;

/// Every error of this crate. None of them quotes a prompt.
#[derive(Debug, thiserror::Error)]
pub enum SaeError {
    /// The model failed, or the keeper stopped the work.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A recipe that cannot be followed.
    #[error("the SAE cannot be trained so: {0}")]
    Recipe(String),
    /// A file that is not what it should be.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint of another training.
    #[error(
        "{path}: this checkpoint is of another training: {what}. Give the same model, prompts and settings, or train anew in another folder"
    )]
    OtherTraining {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// An SAE of another model.
    #[error("the SAE was trained on model {found}, this is {here}: name that model")]
    OtherModel {
        /// The model that it was trained on.
        found: String,
        /// The model at hand.
        here: String,
    },
    /// An SAE of another width than the model's activations.
    #[error(
        "the SAE takes activations of {found} values, the model's have {here}: name the model that it was trained on"
    )]
    OtherWidth {
        /// The SAE's.
        found: usize,
        /// The model's.
        here: usize,
    },
    /// Features of a place where no unit is.
    #[error(
        "features of {} of layer {} cannot be measured or cut: only those of the residual stream \
         behind a layer can (resid-post, or resid-pre of the next layer)",
        .0.site.name(), .0.layer
    )]
    Unserved(Place),
    /// An SAE that leaves out tokens.
    #[error(
        "the SAE leaves out the first {0} tokens of every prompt: its features cannot be cut, which \
         is at every token. Train one with --skip-first 0"
    )]
    Skips(usize),
    /// Nothing to train on, or nothing to judge by.
    #[error("no prompts {0}: at least one is needed")]
    Empty(&'static str),
    /// The loss is no longer a number.
    #[error("the loss became {loss} at step {step}: lower the learning rate (it is {rate})")]
    Diverged {
        /// The loss.
        loss: f64,
        /// The step, from 1.
        step: u64,
        /// The peak learning rate.
        rate: f64,
    },
}

impl SaeError {
    pub(crate) fn recipe(why: impl std::fmt::Display) -> Self {
        Self::Recipe(why.to_string())
    }

    pub(crate) fn format(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

impl From<candle_core::Error> for SaeError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}

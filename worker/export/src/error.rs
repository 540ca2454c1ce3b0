//! What can go wrong while a student is written or read.

use std::path::{Path, PathBuf};

/// Results of this crate.
pub type Result<T> = std::result::Result<T, ExportError>;

/// Why an export or a reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// "read" or "write".
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is truncated, foreign or contradicts itself.
    #[error("{} is not what it should be: {reason}", path.display())]
    Format {
        /// Which file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The student has a property that the format cannot carry or that is not known here.
    #[error("{0}")]
    Unsupported(String),
    /// A tensor has another shape than its place asks for.
    #[error("tensor `{name}` has shape {got:?}, {want} is needed")]
    Shape {
        /// Which tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape that is needed, in words.
        want: String,
    },
    /// A tensor that the student needs is absent.
    #[error("tensor `{0}` is missing")]
    MissingTensor(String),
    /// A weight or an activation is infinite or not a number.
    #[error(
        "`{0}` holds values that are infinite, not a number or too large for 4-bit scales in f16"
    )]
    NotFinite(String),
    /// The Hessian stayed indefinite whatever the damping.
    #[error(
        "the Hessian of {width} inputs is not positive definite even with damping {damping}: calibrate on more prompts"
    )]
    Indefinite {
        /// Inputs of the linear.
        width: usize,
        /// The last damping tried, as a fraction of the mean diagonal.
        damping: f64,
    },
    /// What was written does not read back as what was meant.
    #[error("`{name}` reads back otherwise than it was meant: the file is not to be used")]
    Mismatch {
        /// Which tensor.
        name: String,
    },
    /// What was written does not make the tokens that the student was trained on.
    #[error(
        "{} reads conversations otherwise than the student that was trained: {difference}. It is not to be used: if the \
         base's folder was changed since, restore it and export again; else choose another format",
        path.display()
    )]
    OtherTokens {
        /// The folder or file.
        path: PathBuf,
        /// What differs, and where first.
        difference: Box<crate::Difference>,
    },
    /// What is asked for cannot be done, or would not be what was meant: the reason and the remedy.
    #[error("{0}")]
    Refused(String),
    /// The disk has no room for what is to be written.
    #[error(
        "{} has room for {:.1} GB, and {:.1} GB are needed: free some, or write elsewhere",
        folder.display(), *have as f64 / 1e9, *need as f64 / 1e9
    )]
    Room {
        /// Where to.
        folder: PathBuf,
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are free.
        have: u64,
    },
    /// The model could not be read or run.
    #[error(transparent)]
    Model(#[from] uspx_model::ModelError),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[source] candle_core::Error),
}

impl From<candle_core::Error> for ExportError {
    fn from(error: candle_core::Error) -> Self {
        match uspx_model::ModelError::from(error) {
            uspx_model::ModelError::Candle(error) => Self::Tensor(error),
            other => Self::Model(other),
        }
    }
}

impl ExportError {
    pub(crate) fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { action: "read", path, source }
    }

    pub(crate) fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { action: "write", path, source }
    }

    pub(crate) fn format(path: &Path, reason: impl ToString) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.to_string() }
    }
}

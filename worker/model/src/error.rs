//! What can be wrong with a model folder, a template or a computation.

use std::path::{Path, PathBuf};
use uspx_domain::SkipReason;

/// Every error of this crate. Messages say what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is there but is not what it should be.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The configuration asks for mathematics that is not implemented.
    #[error("config.json: {0}")]
    Config(String),
    /// A tensor is missing or has another shape or type.
    #[error("tensor `{name}` {reason}")]
    Tensor {
        /// Its name in the checkpoint.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The tokenizer failed.
    #[error("{0}")]
    Chat(String),
    /// The chat template refuses a conversation, or makes of it what cannot be followed.
    #[error("{file}: the chat template fails: {reason}")]
    Template {
        /// The file that the template came from.
        file: PathBuf,
        /// What it does.
        reason: String,
    },
    /// The caller asked for something that this model cannot do.
    #[error("{0}")]
    Request(String),
    /// The work does not fit into the memory that it may use.
    #[error(
        "the memory budget is too small: {what}, this model needs {} MiB, and may use {} MiB. Give --memory more",
        .needed.div_ceil(1 << 20), .given >> 20
    )]
    Budget {
        /// How it would run: the way that needs least.
        what: &'static str,
        /// Bytes that this takes.
        needed: u64,
        /// Bytes that it may use.
        given: u64,
    },
    /// The keeper asked the work to end.
    #[error("stopped before the work was done")]
    Stopped,
    /// The tensor library failed.
    #[error("tensor operation failed: {0}")]
    Candle(#[source] candle_core::Error),
}

/// An error of ours that passed through the library (`within_candle`) is itself
/// again, and a backtrace is not told to people.
impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        use candle_core::Error::{WithBacktrace, WrappedContext};
        match error {
            WithBacktrace { inner, .. } => Self::from(*inner),
            WrappedContext { wrapped, context } => match wrapped.downcast::<Self>() {
                Ok(own) => *own,
                Err(wrapped) => Self::Candle(WrappedContext { wrapped, context }),
            },
            other => Self::Candle(other),
        }
    }
}

impl ModelError {
    /// The same, for a callback of the tensor library.
    pub(crate) fn within_candle(self) -> candle_core::Error {
        let context = self.to_string();
        candle_core::Error::WrappedContext { wrapped: Box::new(self), context }
    }

    /// Whether the device had no memory left: a smaller batch may fit.
    pub fn is_out_of_memory(&self) -> bool {
        let Self::Candle(error) = self else { return false };
        let text = error.to_string().to_lowercase();
        text.contains("out_of_memory") || text.contains("out of memory")
    }

    /// Why a single prompt cannot be run, where the error is about one.
    pub fn skip_reason(&self) -> Option<SkipReason> {
        match self {
            Self::Template { .. } => Some(SkipReason::Template),
            Self::Chat(_) => Some(SkipReason::Tokenizer),
            _ => None,
        }
    }

    /// The same with the file or folder that it is about, where it does not name one yet.
    pub fn located(self, path: &Path) -> Self {
        match self {
            Self::Config(reason) => Self::malformed(path, reason),
            Self::Tensor { name, reason } => {
                Self::malformed(path, format!("tensor `{name}` {reason}"))
            }
            other => other,
        }
    }

    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn malformed(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn tensor(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Tensor { name: name.into(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_passed_through_the_tensor_library_is_itself_again() {
        let backtraced = ModelError::malformed("a.safetensors", "became shorter").within_candle();
        let error = ModelError::from(backtraced.bt());
        assert_eq!(error.to_string(), "a.safetensors: became shorter");
        let own = candle_core::Error::Msg("no such layout".into());
        let error = ModelError::from(candle_core::Error::WithBacktrace {
            inner: Box::new(own),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        });
        assert_eq!(error.to_string(), "tensor operation failed: no such layout");
    }
}

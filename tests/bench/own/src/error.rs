//! What can go wrong, with the remedy.

use std::path::{Path, PathBuf};

/// An error of the benchmark itself; a figure that misses its bound is none.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The checkpoint cannot be made.
    #[error(transparent)]
    Checkpoint(#[from] uspx_bench_engine::error::BenchError),
    /// There is no nats-server.
    #[error(transparent)]
    Server(#[from] uspx_bus::server::ServerError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] uspx_coordinator::ServiceError),
    /// A part of the colony ended by itself, or the work does not end.
    #[error("{0}")]
    Colony(String),
}

impl BenchError {
    /// For `map_err`: an error at a path.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

/// What fallible functions of this tool return.
pub type Result<T> = std::result::Result<T, BenchError>;

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
    /// The disk is too small.
    #[error(
        "{path} has {free:.1} GB free, {needed:.1} GB are needed: name a folder on a larger disk, or free some space"
    )]
    Disk {
        /// The folder asked for.
        path: PathBuf,
        /// What is free, in GB.
        free: f64,
        /// What is needed, in GB.
        needed: f64,
    },
    /// Something that this machine lacks: what needs it is skipped.
    #[error("{0}")]
    Absent(String),
    /// Two engines that did not do the same.
    #[error("{0}")]
    Unequal(String),
    /// Shapes that make no model.
    #[error("{0}")]
    Shape(String),
    /// A program that was run.
    #[error("{program} {why}; its messages are in {log}")]
    Program {
        /// Which.
        program: String,
        /// What it did.
        why: String,
        /// What it said on stderr.
        log: PathBuf,
    },
    /// A number that a program did not print.
    #[error("{program} printed no `{key}`: is it of this version?")]
    Missing {
        /// Which.
        program: String,
        /// The key of its JSON.
        key: String,
    },
}

impl BenchError {
    /// For `map_err`: an error at a path.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

/// What fallible functions of this tool return.
pub type Result<T> = std::result::Result<T, BenchError>;

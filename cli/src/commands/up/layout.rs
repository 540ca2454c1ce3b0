//! Where a colony of one machine keeps what, all below one folder.

use crate::error::{CliError, Result};
use std::path::{Path, PathBuf};

/// The folder.
#[derive(Debug, Clone)]
pub struct Layout {
    out: PathBuf,
}

impl Layout {
    /// Makes the folder, if it is not there.
    pub fn new(out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|e| CliError::file(out, &e))?;
        let out = out.canonicalize().map_err(|e| CliError::file(out, &e))?;
        Ok(Self { out })
    }

    /// The folder itself.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// A folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// The coordinator's state.
    pub fn colony(&self) -> PathBuf {
        self.folder("colony")
    }

    /// The state of a worker, from 1.
    pub fn worker(&self, number: u16) -> PathBuf {
        self.folder(&format!("worker-{number}"))
    }

    /// The pulled student.
    pub fn student(&self) -> PathBuf {
        self.folder("student")
    }
}

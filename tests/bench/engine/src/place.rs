//! Where everything is: the repository, the binary under test, and the folder of a run.

use crate::error::{BenchError, Result};
use std::path::{Path, PathBuf};

/// The places that all figures share.
pub struct Place {
    /// The repository.
    pub root: PathBuf,
    /// The checkpoint, and a folder for each run.
    pub work: PathBuf,
    /// The binary under test.
    pub uspx: PathBuf,
}

impl Place {
    /// Of a benchmark of this name, by its flags where they are given.
    ///
    /// # Errors
    /// There is no such binary, or the folder cannot be made.
    pub fn of(name: &str, work: Option<&Path>, uspx: Option<&Path>) -> Result<Self> {
        let found = |path: &Path| path.canonicalize().map_err(BenchError::file(path));
        let root = found(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.."))?;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let work = work.map_or_else(|| target.join(name), Path::to_owned);
        std::fs::create_dir_all(&work).map_err(BenchError::file(&work))?;
        let uspx = uspx.map_or_else(|| target.join("release/uspx"), Path::to_owned);
        Ok(Self { uspx: found(&uspx)?, work: found(&work)?, root })
    }

    /// An empty folder for a run.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn run(&self, name: &str) -> Result<PathBuf> {
        let folder = self.work.join(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(BenchError::file(&folder)(error));
            }
            _ => {}
        }
        std::fs::create_dir_all(&folder).map_err(BenchError::file(&folder))?;
        Ok(folder)
    }

    /// The small student that ships with uspx.
    pub fn student(&self) -> PathBuf {
        self.root.join("cli/assets/nano/student")
    }
}

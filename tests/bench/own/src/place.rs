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

    /// The first lines of the prompts that ship with uspx, as files to learn from, to choose by and
    /// to judge by, so many each; the lines of a configuration that name them.
    ///
    /// # Errors
    /// A file that cannot be read or written, or fewer prompts than that.
    pub fn split(&self, folder: &Path, counts: [usize; 3]) -> Result<String> {
        let all = self.root.join("cli/assets/prompts/cli-train.jsonl");
        let text = std::fs::read_to_string(&all).map_err(BenchError::file(&all))?;
        let mut lines = text.lines();
        let mut config = String::new();
        for (name, count) in ["train", "validation", "gate"].into_iter().zip(counts) {
            let taken: Vec<&str> = lines.by_ref().take(count).collect();
            if taken.len() < count {
                let why = format!("{} has fewer prompts than are asked for", all.display());
                return Err(BenchError::Colony(why));
            }
            let path = folder.join(format!("{name}.jsonl"));
            std::fs::write(&path, taken.join("\n")).map_err(BenchError::file(&path))?;
            config += &format!("{name} = '{}'\n", path.display());
        }
        Ok(config)
    }
}

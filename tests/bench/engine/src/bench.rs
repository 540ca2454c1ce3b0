//! Where everything is: the binary under test, the Python peers, and the work folder with the
//! models that are measured.

use crate::checkpoint::{self, GptOss};
use crate::error::{BenchError, Result};
use crate::program::{self, Program};
use std::path::{Path, PathBuf};

/// The places and settings that all figures share.
pub struct Bench {
    /// The repository.
    pub root: PathBuf,
    /// Models, token files and logs.
    pub work: PathBuf,
    /// The binary under test.
    pub uspx: PathBuf,
    /// Threads of every engine.
    pub threads: usize,
    /// How often A and B alternate.
    pub rounds: usize,
    /// Less of everything: to see whether it runs, not to report.
    pub quick: bool,
}

/// Prompts of the speed figures.
const PROMPTS: usize = 256;

/// A token file of a model, and how it was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Prompts as they are.
    Real,
    /// Joined and cut into pieces of this many tokens.
    Equal(usize),
}

impl Bench {
    /// The prompts that ship with uspx.
    pub fn prompts(&self) -> PathBuf {
        self.root.join("cli/assets/prompts/cli-train.jsonl")
    }

    /// How many of them the speed figures use.
    pub fn limit(&self) -> usize {
        if self.quick { 64 } else { PROMPTS }
    }

    /// A run of the binary under test.
    pub fn uspx(&self, name: &str) -> Program {
        Program::new(name, &self.uspx, &self.logs())
    }

    /// A script of tests/bench/peers, in the Python of the parity checks.
    ///
    /// # Errors
    /// There is no such Python.
    pub fn peer(&self, name: &str, script: &str) -> Result<Program> {
        self.parity(name, &format!("bench/peers/{script}"))
    }

    /// A script of the tests folder, in the Python of the parity checks.
    ///
    /// # Errors
    /// There is no such Python.
    pub fn parity(&self, name: &str, script: &str) -> Result<Program> {
        program::parity(name, (&self.root, &self.logs()), script, self.threads)
    }

    /// llama.cpp's script, in the Python of the tests.
    ///
    /// # Errors
    /// There is no such Python.
    pub fn llama_cpp(&self, name: &str, script: &str) -> Result<Program> {
        let venv = self.root.join(".tools/venv-test");
        let script = format!("bench/peers/{script}");
        let how = (&*venv, &*script, "tests/tools/venv.sh");
        program::python(name, (&self.root, &self.logs()), how, self.threads)
    }

    /// A model of checkpoints.py, made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn model(&self, kind: &str) -> Result<PathBuf> {
        let folder = self.work.join(kind);
        // The file that is written last.
        if !folder.join("generation_config.json").exists() {
            eprintln!("making {}", folder.display());
            self.peer(&format!("make-{kind}"), "checkpoints.py")?.arg(kind).arg(&folder).json()?;
        }
        Ok(folder)
    }

    /// The checkpoint of gpt-oss-20b's shapes, made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn large(&self) -> Result<(PathBuf, GptOss)> {
        let (folder, shape) = (self.work.join("20b"), GptOss::default());
        eprintln!("a checkpoint of gpt-oss-20b's shapes: {}", folder.display());
        checkpoint::write(&folder, &shape, 0)?;
        Ok((folder, shape))
    }

    /// The token sequences of the first `limit` prompts.
    ///
    /// # Errors
    /// tokens.py fails.
    pub fn tokens(&self, model: &Path, limit: usize, cut: Cut) -> Result<PathBuf> {
        let kind = model.file_name().unwrap_or_default().to_string_lossy();
        let (name, length) = match cut {
            Cut::Real => (format!("tokens-{kind}-{limit}"), None),
            Cut::Equal(length) => (format!("tokens-{kind}-{limit}-{length}"), Some(length)),
        };
        let script = self
            .peer(&name, "tokens.py")?
            .arg(model)
            .arg(self.prompts())
            .args(["--limit", &limit.to_string()]);
        let lengths =
            length.iter().flat_map(|length| ["--equal-length".to_owned(), length.to_string()]);
        let text = script.args(lengths).text()?;
        let path = self.work.join(format!("{name}.jsonl"));
        std::fs::write(&path, text).map_err(BenchError::file(&path))?;
        Ok(path)
    }

    /// Where programs' outputs are kept.
    pub fn logs(&self) -> PathBuf {
        self.work.join("logs")
    }
}

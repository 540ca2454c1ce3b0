//! Runs of the binary under test, each kept with what it printed.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use uspx_bench_engine::error::{BenchError, Result};
use uspx_bench_engine::program::Program;

/// Where cells are, and what they are runs of.
pub struct Cells {
    uspx: PathBuf,
    /// Digest of the binary: cells of another one are not its.
    binary: blake3::Hash,
    folder: PathBuf,
    threads: usize,
}

impl Cells {
    /// The cells of a binary.
    ///
    /// # Errors
    /// There is no such binary, or the folder cannot be made.
    pub fn new(uspx: &Path, folder: &Path, threads: usize) -> Result<Self> {
        let binary = blake3::hash(&fs::read(uspx).map_err(BenchError::file(uspx))?);
        fs::create_dir_all(folder).map_err(BenchError::file(folder))?;
        let folder = folder.canonicalize().map_err(BenchError::file(folder))?;
        Ok(Self { uspx: uspx.to_owned(), binary, folder, threads })
    }

    /// What the binary prints, as JSON, when it is run with these arguments. Arguments that name
    /// files stand for what the files hold; what they hold may not change meanwhile.
    ///
    /// # Errors
    /// It fails, or prints no JSON.
    pub fn run(&self, name: &str, args: &[&str]) -> Result<Value> {
        self.cell(name, args, || {
            let logs = self.folder.join("logs");
            let program = Program::new(name, &self.uspx, &logs).args(args).arg("--json");
            Ok(program.arg("--threads").arg(self.threads.to_string()).json()?.json)
        })
    }

    /// What is kept of a run, or else what it prints.
    fn cell(
        &self,
        name: &str,
        args: &[&str],
        run: impl FnOnce() -> Result<Value>,
    ) -> Result<Value> {
        let path = self.folder.join(format!("{name}-{}.json", self.key(args)));
        if let Ok(text) = fs::read(&path)
            && let Ok(value) = serde_json::from_slice(&text)
        {
            return Ok(value);
        }
        let found = run()?;
        let part = path.with_extension("part");
        fs::write(&part, found.to_string()).map_err(BenchError::file(&part))?;
        fs::rename(&part, &path).map_err(BenchError::file(&path))?;
        Ok(found)
    }

    /// A file with this content, named by it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let digest = blake3::hash(content.as_bytes()).to_hex();
        let path = self.folder.join(format!("{name}-{}.json", digest.get(..16).unwrap_or(&digest)));
        fs::write(&path, content).map_err(BenchError::file(&path))?;
        Ok(path)
    }

    /// What the engine's benchmark prints, which lies beside the binary under test. It keeps its own
    /// work; what it measured is kept here too.
    ///
    /// # Errors
    /// It is not there, fails, or prints no JSON.
    pub fn engine(&self, args: &[&str]) -> Result<Value> {
        self.cell("engine", args, || {
            let binary = self.uspx.with_file_name("uspx-bench-engine");
            if !binary.exists() {
                let reason =
                    format!("there is no {}: build the workspace's binaries", binary.display());
                return Err(BenchError::Absent(reason));
            }
            let program = Program::new("engine", &binary, &self.folder.join("logs"));
            let program = program.args(args).arg("--uspx").arg(&self.uspx);
            // It ends with 1 where a figure does not hold; which, its figures say.
            Ok(program.json_whatever_the_status()?.json)
        })
    }

    /// The first lines of a file, as a file.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn first_lines(&self, file: &Path, count: usize) -> Result<PathBuf> {
        let text = fs::read_to_string(file).map_err(BenchError::file(file))?;
        let lines: Vec<&str> = text.lines().take(count).collect();
        self.file("lines", &(lines.join("\n") + "\n"))
    }

    /// A folder that is not there, for a run that makes it; a name that stays the same.
    ///
    /// # Errors
    /// What is there cannot be removed.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{name}-being-made"));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(BenchError::file(&path))?;
        }
        Ok(path)
    }

    /// The folder, for files that a run writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn key(&self, args: &[&str]) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.binary.as_bytes());
        for arg in args {
            hasher.update(&(arg.len() as u64).to_le_bytes()).update(arg.as_bytes());
        }
        hasher.finalize().to_hex().chars().take(20).collect()
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_cell_runs_once_and_another_binary_has_others() {
        let folder = tempfile::tempdir().unwrap();
        let (binary, log) = (folder.path().join("uspx"), folder.path().join("log"));
        let script = |end: &str| {
            let text = format!("#!/bin/sh\necho x >> {}\necho '{{\"n\": 1}}'{end}", log.display());
            fs::write(&binary, text).unwrap();
            fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
            Cells::new(&binary, &folder.path().join("work"), 1).unwrap()
        };
        let runs = || fs::read_to_string(&log).unwrap().lines().count();
        let cells = script("");
        for _ in 0..2 {
            assert_eq!(cells.run("a", &["x"]).unwrap()["n"], 1);
        }
        assert_eq!(runs(), 1);
        cells.run("a", &["y"]).unwrap();
        assert_eq!(runs(), 2);
        script("\n").run("a", &["x"]).unwrap();
        assert_eq!(runs(), 3);
    }
}

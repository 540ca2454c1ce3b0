//! Runs of the binary under test, each kept with what it printed.

use crate::error::{BenchError, Result};
use crate::program::Program;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Where cells are, and what they are runs of.
pub struct Cells {
    uspx: PathBuf,
    /// Digest of the binary: cells of another one are not its.
    binary: blake3::Hash,
    folder: PathBuf,
    threads: usize,
}

/// What becomes of a run that was killed, when it is asked for again.
#[derive(Debug, Clone, Copy)]
pub enum Killed<'a> {
    /// It begins anew.
    Anew,
    /// It goes on from the state that it keeps in the file of this flag.
    State(&'a str),
    /// It goes on from what is in its folder.
    GoesOn,
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
        self.cell(name, args, || self.once(name, args))
    }

    /// The binary with these arguments. Several may run at once, each with logs of its own.
    fn program(&self, name: &str, args: &[&str]) -> Program {
        let (name, logs) = (format!("{name}-{}", self.key(args)), self.folder.join("logs"));
        let program = Program::new(&name, &self.uspx, &logs).args(args).arg("--json");
        program.env("USPX_THREADS", self.threads.to_string())
    }

    /// The same, run now and not kept: for times that are compared.
    ///
    /// # Errors
    /// It fails, or prints no JSON.
    pub fn once(&self, name: &str, args: &[&str]) -> Result<Value> {
        Ok(self.program(name, args).json()?.json)
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

    /// The folder that a run makes under `--out`, and what the run printed; both are kept.
    ///
    /// # Errors
    /// Those of the run.
    pub fn made(&self, name: &str, args: &[&str], after: Killed<'_>) -> Result<(PathBuf, Value)> {
        let out = self.folder.join(format!("{name}-{}", self.key(args)));
        let found = self.cell(name, args, || {
            // Made by a run that was killed before what it printed was kept.
            if !matches!(after, Killed::GoesOn) {
                remove(&out)?;
            }
            let program = self.program(name, args).arg("--out").arg(&out);
            let program = match after {
                Killed::State(flag) => program.arg(flag).arg(out.with_extension("state")),
                Killed::Anew | Killed::GoesOn => program,
            };
            Ok(program.json()?.json)
        })?;
        Ok((out, found))
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
        remove(&path)?;
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

/// Removes a file or a folder that may be there.
fn remove(path: &Path) -> Result<()> {
    let gone = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false if path.exists() => fs::remove_file(path),
        false => Ok(()),
    };
    gone.map_err(BenchError::file(path))
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

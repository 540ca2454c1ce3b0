//! Runs other programs: their JSON, and what the system says about them while they run.

use crate::error::{BenchError, Result};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program to run, and where its output is kept.
pub struct Program {
    name: String,
    command: Command,
    logs: PathBuf,
    any_status: bool,
}

/// What a program did.
pub struct Done {
    /// The JSON object that it printed last.
    pub json: Value,
    /// From start to end.
    pub seconds: f64,
    /// What the system said of it meanwhile; empty where there is no /proc.
    pub samples: Vec<Sample>,
    program: String,
}

/// A moment of a running program.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the start.
    pub seconds: f64,
    /// Resident memory.
    pub rss: u64,
    /// All bytes that it has read from files so far.
    pub read: u64,
}

/// How often a running program is looked at.
const EVERY: Duration = Duration::from_millis(50);

impl Program {
    /// `executable` with the log files `logs/NAME.out` and `logs/NAME.err`.
    pub fn new(name: &str, executable: &Path, logs: &Path) -> Self {
        let (name, command) = (name.to_owned(), Command::new(executable));
        Self { name, command, logs: logs.to_owned(), any_status: false }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets its working folder.
    pub fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end; what it printed on stdout.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn text(self) -> Result<String> {
        Ok(self.finish()?.0)
    }

    /// Runs it to its end; the JSON object that it printed: the last line, or all of stdout.
    ///
    /// # Errors
    /// It cannot be started, fails, or prints no JSON.
    pub fn json(self) -> Result<Done> {
        let (program, log) = (self.name.clone(), self.err());
        let (text, seconds, samples) = self.finish()?;
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let json = serde_json::from_str(last).or_else(|_| serde_json::from_str(&text));
        match json {
            Ok(json) => Ok(Done { json, seconds, samples, program }),
            Err(_) => Err(BenchError::Program { program, why: "printed no JSON".into(), log }),
        }
    }

    /// The same where the status says only whether what was measured holds.
    ///
    /// # Errors
    /// It cannot be started, or prints no JSON.
    pub fn json_whatever_the_status(mut self) -> Result<Done> {
        self.any_status = true;
        self.json()
    }

    fn finish(mut self) -> Result<(String, f64, Vec<Sample>)> {
        std::fs::create_dir_all(&self.logs).map_err(BenchError::file(&self.logs))?;
        let (out, err) = (self.logs.join(format!("{}.out", self.name)), self.err());
        let create = |path: &Path| File::create(path).map_err(BenchError::file(path));
        self.command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?);
        let failed =
            |why: String| BenchError::Program { program: self.name.clone(), why, log: err.clone() };
        let start = Instant::now();
        let mut child =
            self.command.spawn().map_err(|e| failed(format!("cannot be started: {e}")))?;
        let mut samples = Vec::new();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|e| failed(e.to_string()))? {
                break status;
            }
            samples.extend(sample(child.id(), start.elapsed().as_secs_f64()));
            std::thread::sleep(EVERY);
        };
        let seconds = start.elapsed().as_secs_f64();
        if !status.success() && !self.any_status {
            return Err(failed(format!("ended with {status}")));
        }
        Ok((std::fs::read_to_string(&out).map_err(BenchError::file(&out))?, seconds, samples))
    }

    fn err(&self) -> PathBuf {
        self.logs.join(format!("{}.err", self.name))
    }
}

impl Done {
    /// A number of its JSON.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn number(&self, key: &str) -> Result<f64> {
        number(&self.program, &self.json, key)
    }

    /// All bytes that it read from files, as last seen.
    pub fn read(&self) -> Option<u64> {
        self.samples.last().map(|s| s.read)
    }
}

/// A number of what a program printed.
///
/// # Errors
/// There is none of that name.
pub fn number(program: &str, found: &Value, key: &str) -> Result<f64> {
    let missing = || BenchError::Missing { program: program.to_owned(), key: key.to_owned() };
    found.get(key).and_then(Value::as_f64).ok_or_else(missing)
}

/// A script of the tests folder, in the Python of the parity checks.
///
/// # Errors
/// There is no such Python.
pub fn parity(
    name: &str,
    (root, logs): (&Path, &Path),
    script: &str,
    threads: usize,
) -> Result<Program> {
    let named = std::env::var_os("USPX_PARITY_VENV").map(PathBuf::from);
    let venv = named.unwrap_or_else(|| root.join(".tools/venv-parity"));
    python(name, (root, logs), (&venv, script, "tests/parity/venv.sh"), threads)
}

/// The same in the Python of a venv, which the remedy makes.
///
/// # Errors
/// There is no such Python.
pub fn python(
    name: &str,
    (root, logs): (&Path, &Path),
    (venv, script, remedy): (&Path, &str, &str),
    threads: usize,
) -> Result<Program> {
    let python = venv.join("bin/python");
    if !python.exists() {
        let reason = format!("there is no Python at {}: run {remedy}", python.display());
        return Err(BenchError::Absent(reason));
    }
    let program = Program::new(name, &python, logs).arg(root.join("tests").join(script));
    Ok(program.env("OMP_NUM_THREADS", threads.to_string()))
}

fn sample(id: u32, seconds: f64) -> Option<Sample> {
    let rss =
        kilobytes(&std::fs::read_to_string(format!("/proc/{id}/status")).ok()?, "VmRSS:")? * 1024;
    let io = std::fs::read_to_string(format!("/proc/{id}/io")).ok()?;
    Some(Sample { seconds, rss, read: kilobytes(&io, "rchar:")? })
}

/// The number behind a key of a /proc file.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Program) {
        let logs = tempfile::tempdir().unwrap();
        let program = Program::new("shell", Path::new("/bin/sh"), logs.path()).args(["-c", script]);
        (logs, program)
    }

    #[test]
    fn the_last_line_or_the_whole_output_is_the_answer() {
        let (_logs, program) = shell("echo hello; echo '{\"a\": 2}'");
        assert_eq!(program.json().unwrap().number("a").unwrap(), 2.0);
        let (_logs, program) = shell("printf '{\\n\"a\": 3\\n}\\n'");
        assert_eq!(program.json().unwrap().number("a").unwrap(), 3.0);
    }

    #[test]
    fn failures_name_the_program_and_its_log() {
        let (_logs, program) = shell("echo no >&2; exit 3");
        let error = program.json().err().unwrap().to_string();
        assert!(error.contains("shell ended with") && error.contains("shell.err"), "{error}");
        let (_logs, program) = shell("echo '{}'");
        assert!(program.json().unwrap().number("a").unwrap_err().to_string().contains("no `a`"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_running_program_is_watched() {
        let (_logs, program) = shell("sleep 0.3; echo '{}'");
        let done = program.json().unwrap();
        assert!(
            done.samples.len() > 2 && done.samples.iter().all(|s| s.rss > 0),
            "{:?}",
            done.samples
        );
        assert!(done.seconds >= 0.3 && done.read().is_some());
    }
}

//! Runs tests by name in one run of nextest, and reads what became of each from its messages.

use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// What became of a test; the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It passed.
    Held,
    /// It cannot run on this machine.
    Skipped,
    /// No test bears the name.
    Missing,
    /// It failed.
    Failed,
}

impl Outcome {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Skipped => "skipped",
            Self::Missing => "missing",
            Self::Failed => "FAILED",
        }
    }
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No cargo, or no nextest.
    #[error("cargo nextest cannot be run ({0}): run tests/tools/nextest.sh")]
    Nextest(#[from] std::io::Error),
    /// It gave no messages.
    #[error("cargo nextest told of no test: see above")]
    Silent,
}

/// A message of nextest, in libtest's form.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    name: Option<String>,
}

/// Whether nextest's name of a test (`crate::binary$module::name`, perhaps with the backend after
/// it) is of that name.
pub fn is(test: &str, name: &str) -> bool {
    let path = test.rsplit_once('$').map_or(test, |(_, path)| path);
    path.split("::").any(|part| part == name)
}

/// Runs the tests of these names.
///
/// # Errors
/// Nextest cannot be run.
pub fn run(names: &[&str], schedules: u64) -> Result<Vec<(String, Outcome)>, RunError> {
    let any = names.iter().map(|name| format!("test(/(^|::){name}(::|$)/)"));
    let filter = any.collect::<Vec<_>>().join(" | ");
    let mut child = Command::new("cargo")
        .args(["nextest", "run", "--locked", "--workspace", "--no-fail-fast"])
        .args(["--message-format", "libtest-json", "-E", &filter])
        .env("NEXTEST_EXPERIMENTAL_LIBTEST_JSON", "1")
        .env("USPX_SCHEDULES", schedules.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut outcomes = Vec::new();
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let Ok(message) = serde_json::from_str::<Message>(&line?) else { continue };
        let outcome = match (message.kind.as_str(), message.event.as_str()) {
            ("test", "ok") => Outcome::Held,
            ("test", "ignored") => Outcome::Skipped,
            ("test", "failed" | "timeout") => Outcome::Failed,
            _ => continue,
        };
        outcomes.extend(message.name.map(|name| (name, outcome)));
    }
    child.wait()?;
    if outcomes.is_empty() { Err(RunError::Silent) } else { Ok(outcomes) }
}

//! Running the binary under test, and reading what it says.

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Exit codes of the contract.
pub const FAILED: i32 = 1;
pub const USAGE: i32 = 2;
pub const BAD_INPUT: i32 = 3;
pub const NOT_FOUND: i32 = 4;
pub const UNREACHABLE: i32 = 5;
pub const REFUSED: i32 = 6;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

pub fn model(which: &str) -> PathBuf {
    root().join("cli/assets/nano").join(which)
}

pub fn prompts(file: &str) -> PathBuf {
    root().join("cli/assets/prompts").join(file)
}

/// `uspx` with one thread and nothing of the caller's settings.
pub fn uspx() -> Command {
    let mut command = Command::new(uspx_tests::uspx());
    for (key, _) in
        std::env::vars().filter(|(key, _)| key.starts_with("USPX_") || key.starts_with("AWS_"))
    {
        command.env_remove(key);
    }
    // A home that cannot exist: a command that uses one unasked fails.
    command.env("HOME", "/dev/null/home").env("RAYON_NUM_THREADS", "1").env("NO_COLOR", "1");
    command.timeout(std::time::Duration::from_secs(120));
    command
}

/// `uspx eval`, or whatever `words` name, on a shipped model and the held-out prompts. The last
/// word may be a flag whose value the caller adds.
pub fn on(words: &[&str], which: &str, limit: usize) -> Command {
    let (names, flags) =
        words.split_at(words.iter().position(|w| w.starts_with('-')).unwrap_or(words.len()));
    let mut command = uspx();
    command
        .args(names)
        .arg("--model")
        .arg(model(which))
        .arg("--prompts")
        .arg(prompts("cli-heldout.jsonl"));
    command.args(["--threads", "1", "--limit", &limit.to_string()]).args(flags);
    command
}

/// Runs it, which must succeed, and reads the one JSON document that it prints.
pub fn json(command: &mut Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)))
}

/// Runs it, which must fail with `code`, say every one of `words`, and print no half of a result.
pub fn refuses(command: &mut Command, code: i32, words: &[&str]) {
    let output = command.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty(), "an error belongs on stderr alone: {said}");
    let (said_dense, panicked) = (dense(&said), said.contains("panicked"));
    assert!(!panicked, "{said}");
    for word in words {
        assert!(said_dense.contains(&dense(word)), "no word of `{word}` in: {said}");
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Without the frame and the line breaks, which fall anywhere, even within a path.
fn dense(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '│').collect()
}

/// A copy of a folder without subfolders.
pub fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

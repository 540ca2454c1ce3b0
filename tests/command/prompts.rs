//! Prompts as people have them: ids or none, chat lines, plain text; what they are scored on; and that
//! no secret leaves this machine unasked.

use crate::support::{BAD_INPUT, REFUSED, UNREACHABLE, json, model, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::{Value, json as value};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        lines_have_an_id_a_number_or_none,
        a_repeated_line_counts_once_and_is_named,
        a_chat_line_is_measured_with_its_earlier_turns,
        a_chat_line_that_cannot_be_carried_is_refused_by_its_number,
        plain_text_is_a_prompt_a_line,
        what_is_scored_is_said_on_the_first_line,
        a_secret_stops_a_coordinator_before_it_speaks_to_anyone,
    ]
}

/// A prompt file of these lines.
fn file(lines: &[Value]) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("mine.jsonl");
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    (folder, path)
}

fn eval(path: &Path) -> Command {
    let mut command = uspx();
    command.args(["eval", "--threads", "1", "--max-new-tokens", "8", "--model"]);
    command.arg(model("teacher")).arg("--prompts").arg(path);
    command
}

fn ids(report: &Value) -> Vec<&str> {
    report["per_prompt"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap()).collect()
}

fn lines_have_an_id_a_number_or_none() {
    let (a, b) = (
        value!({"prompt": "List files", "reference": "ls"}),
        value!({"id": 7, "prompt": "Where am I", "reference": "pwd"}),
    );
    let (_one, forward) = file(&[a.clone(), b.clone()]);
    let (_two, backward) = file(&[b, a]);
    let (forward, backward) = (json(&mut eval(&forward)), json(&mut eval(&backward)));
    let made = ids(&forward)[0].to_owned();
    assert!(made.len() == 16 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
    assert_eq!(ids(&forward), [made.as_str(), "7"]);
    assert_eq!(ids(&backward), ["7", made.as_str()]);
}

fn a_repeated_line_counts_once_and_is_named() {
    let line = value!({"prompt": "List files", "reference": "ls"});
    let (_folder, path) = file(&[line.clone(), value!({"prompt": "x", "reference": "y"}), line]);
    let output = eval(&path).arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("line 3 repeats line 1"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["prompts"], 2);
}

fn a_chat_line_is_measured_with_its_earlier_turns() {
    let says = |role: &str, content: &str| value!({"role": role, "content": content});
    let last = [says("user", "Now by size"), says("assistant", "ls -S")];
    let before = [says("user", "List files"), says("assistant", "ls")];
    let alone = value!({"id": "alone", "messages": last});
    let all = [before, last.clone()].concat();
    let whole = value!({"id": "whole", "messages": all});
    let plain = value!({"id": "plain", "prompt": "Now by size", "reference": "ls -S"});
    let (_folder, path) = file(&[alone, whole, plain]);
    let report = json(&mut eval(&path));
    let of = |at: usize| &report["per_prompt"][at];
    // Rows of one batch may be summed in another order, by where they stand in it.
    let loss = |at: usize| of(at)["loss"].as_f64().unwrap();
    assert!((loss(0) - loss(2)).abs() < 1e-5, "one turn is a plain prompt: {report}");
    assert_eq!(of(0)["tokens"], of(1)["tokens"], "the answer is the same");
    assert!((loss(0) - loss(1)).abs() > 1e-3, "earlier turns change what it is likely to be");
}

fn a_chat_line_that_cannot_be_carried_is_refused_by_its_number() {
    let tool =
        value!({"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]});
    let good = value!({"prompt": "List files", "reference": "ls"});
    let (_folder, path) = file(&[good, tool]);
    let words = ["mine.jsonl", "line 2", "message 2", "`tool`", "--skip-bad"];
    refuses(&mut eval(&path), BAD_INPUT, &words);
    assert_eq!(json(eval(&path).arg("--skip-bad"))["prompts"], 1);
}

fn plain_text_is_a_prompt_a_line() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("mine.txt");
    fs::write(&path, "List all files\n\nShow the date\n").unwrap();
    refuses(&mut eval(&path), BAD_INPUT, &["line 1", "--text"]);
    let report = json(eval(&path).arg("--text"));
    assert_eq!(report["scored"], value!({"reference": 0, "own_answer": 2}));
}

fn what_is_scored_is_said_on_the_first_line() {
    let given = value!({"prompt": "List files", "reference": "ls"});
    let (_folder, path) = file(&[given.clone(), value!({"prompt": "Show the date"})]);
    let output = eval(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap();
    assert!(first.contains("1 of 2 prompts") && first.contains("own greedy answer"), "{said}");
    let report = json(&mut eval(&path));
    assert_eq!(report["scored"], value!({"reference": 1, "own_answer": 1}));
    let mut patch = uspx();
    patch.args([
        "probe",
        "patch",
        "--units",
        "head",
        "--layers",
        "0..1",
        "--threads",
        "1",
        "--model",
    ]);
    patch.arg(model("teacher")).args(["--max-new-tokens", "8", "--prompts"]).arg(&path);
    assert_eq!(json(&mut patch)["scored"], value!({"reference": 1, "own_answer": 1}));
}

fn a_secret_stops_a_coordinator_before_it_speaks_to_anyone() {
    // Put together here, so that no scanner finds one in this file.
    let secret = ["gh", "p_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"].concat();
    let (folder, train) = file(&[
        value!({"prompt": "List files", "reference": "ls"}),
        value!({"prompt": "Log in", "reference": format!("gh auth login --with {secret}")}),
    ]);
    let gate = folder.path().join("gate.jsonl");
    fs::write(&gate, value!({"prompt": "Show the date"}).to_string()).unwrap();
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let coordinator = || {
        let mut command = uspx();
        command.args(["coordinator", "--nats", &format!("nats://127.0.0.1:{port}"), "--store"]);
        command.arg(folder.path().join("store")).arg("--state").arg(folder.path().join("state"));
        command.arg("--train").arg(&train).arg("--gate").arg(&gate);
        command
    };
    refuses(&mut coordinator(), REFUSED, &["mine.jsonl, line 2", "github-pat", "--allow-secrets"]);
    let output = coordinator().output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains(&secret));
    assert!(!folder.path().join("store").exists() && !folder.path().join("state").exists());
    refuses(coordinator().arg("--allow-secrets"), UNREACHABLE, &["sent all the same"]);
}

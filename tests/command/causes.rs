//! A cause always reaches the person: prompts left out by name, files of other encodings, closed
//! pipes. (The system's own reason and logs without colours: `students`.)

use crate::support::{BAD_INPUT, json, model, prompts, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::{TempDir, tempdir};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_prompt_that_is_too_long_is_left_out_and_the_others_are_measured_as_without_it,
        every_probe_and_mask_build_leave_it_out,
        where_no_prompt_is_left_the_reasons_are_the_error,
        a_prompt_that_cannot_even_be_asked_leaves_the_others_their_answers,
        a_byte_order_mark_is_skipped_and_utf_16_is_named,
        #[cfg(unix)]
        run_into_a_closed_pipe_ends_quietly_and_at_once,
        #[cfg(unix)]
        progress_into_a_closed_pipe_is_no_error,
    ]
}

/// Prompts that every shipped model can run.
const GOOD: usize = 4;
/// More words than the shipped student's context of 8192 has tokens.
const WORDS: usize = 9000;

fn good_lines() -> Vec<String> {
    let text = fs::read_to_string(prompts("cli-heldout.jsonl")).unwrap();
    text.lines().take(GOOD).map(str::to_owned).collect()
}

/// Prompt files with, after their second line, one that is too long for the student.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempdir().unwrap();
        let long =
            serde_json::json!({"id": "long", "prompt": "list ".repeat(WORDS), "reference": "ls"})
                .to_string();
        let mut lines = good_lines();
        fs::write(folder.path().join("good.jsonl"), lines.join("\n")).unwrap();
        fs::write(folder.path().join("long.jsonl"), &long).unwrap();
        lines.insert(2, long);
        fs::write(folder.path().join("mixed.jsonl"), lines.join("\n")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }
}

/// A command on the student and a prompt file. The last word may be a flag whose value the caller
/// adds.
fn on(words: &[&str], prompts: &Path) -> Command {
    let (names, flags) =
        words.split_at(words.iter().position(|w| w.starts_with('-')).unwrap_or(words.len()));
    let mut command = uspx();
    command.args(names).arg("--model").arg(model("student")).arg("--prompts").arg(prompts);
    command.args(["--threads", "1"]).args(flags);
    command
}

fn one_too_long(report: &Value) {
    let skipped = report["skipped"].as_array().unwrap_or_else(|| panic!("no `skipped`: {report}"));
    assert_eq!(skipped.len(), 1, "{report}");
    assert_eq!((&skipped[0]["id"], &skipped[0]["reason"]), (&"long".into(), &"too_long".into()));
    assert!(skipped[0]["tokens"].as_u64() > Some(WORDS as u64) && skipped[0]["context"] == 8192);
}

fn a_prompt_that_is_too_long_is_left_out_and_the_others_are_measured_as_without_it() {
    let files = Files::new();
    let mixed = json(&mut on(&["eval"], &files.path("mixed.jsonl")));
    let alone = json(&mut on(&["eval"], &files.path("good.jsonl")));
    one_too_long(&mixed);
    assert_eq!(alone["skipped"], serde_json::json!([]));
    assert_eq!((&mixed["per_prompt"], &mixed["loss"]), (&alone["per_prompt"], &alone["loss"]));
    assert_eq!(mixed["prompts"], GOOD);

    let person = on(&["eval"], &files.path("mixed.jsonl")).output().unwrap();
    let said = String::from_utf8(person.stderr).unwrap();
    assert!(
        person.status.success()
            && said.contains("prompt long is left out")
            && said.contains("8192"),
        "{said}"
    );
}

fn every_probe_and_mask_build_leave_it_out() {
    let files = Files::new();
    let mixed = files.path("mixed.jsonl");
    let mask = files.path("mask.json");
    let mut build = on(
        &["mask", "build", "--keep", "0.5", "--units", "head", "--method", "norm", "--out"],
        &mixed,
    );
    one_too_long(&json(build.arg(&mask)));
    assert!(
        !fs::read_to_string(&mask).unwrap().contains("skipped"),
        "the file is a mask and nothing else"
    );
    for words in [
        &["probe", "trace"][..],
        &["probe", "patch", "--units", "head", "--method", "atp", "--layers", "0..1"],
    ] {
        one_too_long(&json(&mut on(words, &mixed)));
    }
    one_too_long(&json(on(&["probe", "ablate", "--mask"], &mixed).arg(&mask)));
}

fn where_no_prompt_is_left_the_reasons_are_the_error() {
    let files = Files::new();
    refuses(
        &mut on(&["eval", "--json"], &files.path("long.jsonl")),
        BAD_INPUT,
        &["prompt long", "context is 8192"],
    );
    let bare = files.write(
        "bare.jsonl",
        format!("{{\"id\": \"bare\", \"prompt\": \"{}\"}}", "list ".repeat(WORDS)),
    );
    refuses(&mut on(&["eval", "--json"], &bare), BAD_INPUT, &["prompt bare", "context is 8192"]);
}

fn a_prompt_that_cannot_even_be_asked_leaves_the_others_their_answers() {
    let files = Files::new();
    let bare = |id: &str, text: &str| serde_json::json!({"id": id, "prompt": text}).to_string();
    let lines =
        [bare("long", &"list ".repeat(WORDS)), bare("asked", "List files"), good_lines().remove(0)];
    let path = files.write("bare.jsonl", lines.join("\n"));
    let report = json(&mut on(&["eval", "--max-new-tokens", "8"], &path));
    one_too_long(&report);
    assert_eq!(report["per_prompt"][0]["id"], "asked");
}

fn a_byte_order_mark_is_skipped_and_utf_16_is_named() {
    let files = Files::new();
    let good = fs::read_to_string(files.path("good.jsonl")).unwrap();
    let marked = files.write("marked.jsonl", format!("\u{feff}{good}"));
    let (with, without) =
        (json(&mut on(&["eval"], &marked)), json(&mut on(&["eval"], &files.path("good.jsonl"))));
    assert_eq!(with["per_prompt"], without["per_prompt"]);

    let mask = files.path("mask.json");
    let mut build = on(
        &["mask", "build", "--keep", "0.5", "--units", "head", "--method", "norm", "--out"],
        &marked,
    );
    json(build.arg(&mask));
    fs::write(&mask, format!("\u{feff}{}", fs::read_to_string(&mask).unwrap())).unwrap();
    json(on(&["eval", "--mask"], &marked).arg(&mask));

    let wide: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wide = files.write("wide.jsonl", [&[0xff, 0xfe][..], &wide].concat());
    for flag in ["--json", "--skip-bad"] {
        refuses(
            &mut on(&["eval", flag], &wide),
            BAD_INPUT,
            &["wide.jsonl", "UTF-16", "save it as UTF-8", "iconv"],
        );
    }
}

/// A child whose output goes into a pipe that nobody reads any more.
fn unread(command: &mut std::process::Command, out: bool, err: bool) -> (Option<i32>, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    if out {
        drop(child.stdout.take());
    }
    if err {
        drop(child.stderr.take());
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn run_student(tokens: &str) -> std::process::Command {
    let mut command = std::process::Command::new(uspx_tests::uspx());
    command.args([
        "run",
        "--threads",
        "1",
        "--temperature",
        "0",
        "--max-new-tokens",
        tokens,
        "--model",
    ]);
    command.arg(model("student")).arg("List files");
    command
}

#[cfg(unix)]
fn run_into_a_closed_pipe_ends_quietly_and_at_once() {
    let start = std::time::Instant::now();
    let (code, said) = unread(&mut run_student("8000"), true, false);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(start.elapsed().as_secs() < 60, "it went on for nobody");
    let (code, said) = unread(run_student("8").arg("--json"), true, false);
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[cfg(unix)]
fn progress_into_a_closed_pipe_is_no_error() {
    let files = Files::new();
    let mut command = std::process::Command::new(uspx_tests::uspx());
    command.args(["eval", "--json", "--threads", "1", "--model"]).arg(model("student"));
    let (code, _) = unread(command.arg("--prompts").arg(files.path("good.jsonl")), true, true);
    assert_eq!(code, Some(0));
}

//! Nothing that is printed for a person is wider than 80 columns where there is no terminal to ask,
//! and what is shown of a dead coordinator says so.

use crate::support::{model, on, prompts, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::json as value;
use std::path::Path;
use unicode_width::UnicodeWidthStr;
use uspx_coordinator::Ledger;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        no_command_prints_a_line_wider_than_eighty_columns,
        probe_patch_lists_the_units_that_cost_most_and_all_on_demand,
        a_mask_is_shown_by_layer_with_what_it_costs,
        the_status_of_a_dead_coordinator_says_so,
    ]
}

/// What a command that succeeds says, on both streams.
fn said(command: &mut Command, within: &Path) -> String {
    let output = command.env_remove("COLUMNS").current_dir(within).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn assert_fits(text: &str) {
    assert!(!text.is_empty());
    for line in text.lines() {
        assert!(line.width() <= 80, "{} columns: {line}\n{text}", line.width());
    }
}

fn build(method: &str, limit: usize) -> Command {
    let words = ["mask", "build", "--keep", "0.5", "--out", "mask.json", "--method", method];
    on(&words, "teacher", limit)
}

/// `uspx distill` and `uspx export`, one after the other.
fn one_job_each() -> [Command; 2] {
    let (mut distill, mut export) = (uspx(), uspx());
    distill.args(["distill", "--epochs", "1", "--rank", "2", "--out", "adapter", "--teacher"]);
    distill.arg(model("teacher")).arg("--student").arg(model("student"));
    export.args(["export", "--format", "gguf", "--adapter", "adapter", "--out", "x", "--model"]);
    export.arg(model("student"));
    [distill, export].map(|mut command| {
        command.args(["--threads", "1", "--limit", "4", "--prompts"]);
        command.arg(prompts("cli-train.jsonl"));
        command
    })
}

fn no_command_prints_a_line_wider_than_eighty_columns() {
    let folder = tempfile::tempdir().unwrap();
    let within = folder.path();
    one_job_each().iter_mut().for_each(|command| assert_fits(&said(command, within)));
    Ledger::open(&within.join("ledger"), |_| {}).unwrap();
    std::fs::write(within.join("status.json"), status().to_string()).unwrap();
    assert_fits(&said(&mut build("easy-ep", 2), within));
    let trace = said(&mut on(&["probe", "trace"], "teacher", 3), within);
    assert!(trace.contains("layer") && trace.contains("tokens per second"), "{trace}");
    let patch = ["probe", "patch", "--units", "expert,head", "--layers", "0..1"];
    for text in [
        trace,
        said(&mut on(&patch, "teacher", 2), within),
        said(on(&patch, "teacher", 2).arg("--all"), within),
        said(&mut on(&["eval", "--exact-match", "--max-new-tokens", "4"], "student", 2), within),
        said(&mut on(&["eval", "--mask", "mask.json"], "teacher", 2), within),
        said(&mut on(&["probe", "ablate", "--mask", "mask.json"], "teacher", 2), within),
        said(uspx().args(["mask", "show", "mask.json"]), within),
        said(uspx().args(["ledger", "check", "--state", "."]), within),
        said(uspx().args(["status", "--state", "."]), within),
    ] {
        assert_fits(&text);
    }
}

fn probe_patch_lists_the_units_that_cost_most_and_all_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let patch = ["probe", "patch", "--units", "expert", "--layers", "0..3"];
    let few = said(&mut on(&patch, "teacher", 3), folder.path());
    let all = said(on(&patch, "teacher", 3).arg("--all"), folder.path());
    let units = |text: &str| text.lines().filter(|l| l.starts_with("expert:")).count();
    assert_eq!(units(&few), 20, "{few}");
    assert!(units(&all) > 20, "{all}");
    for words in ["experts on 3 prompts", "needed", "not needed", "undecided", "95 %", "--all"] {
        assert!(few.contains(words), "no `{words}` in {few}");
    }
}

fn a_mask_is_shown_by_layer_with_what_it_costs() {
    let folder = tempfile::tempdir().unwrap();
    let built = said(&mut build("exact", 2), folder.path());
    for words in ["mask.json: keeps", "layer", "nats per response token", "--method easy-ep"] {
        let whole = built.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(whole.contains(words), "no `{words}` in {built}");
    }
    let shown = said(uspx().args(["mask", "show", "mask.json"]), folder.path());
    let layers = |text: &str| {
        let rows = text.lines().map(|l| l.split_whitespace().next().unwrap_or_default());
        rows.filter(|word| word.parse::<u32>().is_ok()).count()
    };
    let depth = std::fs::read_to_string(model("teacher").join("config.json")).unwrap();
    let depth: serde_json::Value = serde_json::from_str(&depth).unwrap();
    assert_eq!(Some(layers(&shown) as u64), depth["num_hidden_layers"].as_u64(), "{shown}");
    assert!(prompts("cli-heldout.jsonl").exists());
}

/// A picture of a coordinator at work, as old as can be.
fn status() -> serde_json::Value {
    value!({
        "colony": "home", "stage": "explore", "epoch": 7, "tasks_open": 3, "tasks_answered": 40,
        "tasks_failed": 0, "mask": null, "release": null, "written_unix_millis": 1_700_000_000_000u64,
        "workers": [{
            "worker": "spare-box", "state": "working", "device": "cpu", "current": null,
            "answered": 20, "silent_millis": 100
        }]
    })
}

fn the_status_of_a_dead_coordinator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger"), |_| {}).unwrap();
    std::fs::write(folder.path().join("status.json"), status().to_string()).unwrap();
    let show = || said(uspx().args(["status", "--state", "."]), folder.path());
    let held_up = show();
    assert!(held_up.contains("runs; this picture is"), "{held_up}");
    drop(ledger);
    let dead = show();
    assert!(dead.contains("DOES NOT RUN") && dead.contains("was working"), "{dead}");
    let json = said(uspx().args(["status", "--json", "--state", "."]), folder.path());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["coordinator"]["alive"], false);
}

//! What scripts rely on: errors as JSON, missing arguments named at once, a configuration that is
//! written, explained and refused.

use crate::support::{BAD_INPUT, NOT_FOUND, REFUSED, USAGE, json, on, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::Value;
use std::fs;
use tempfile::tempdir;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        an_error_under_json_is_json,
        a_usage_error_under_json_is_json_too,
        what_a_role_lacks_is_named_at_once,
        a_configuration_is_written_once_and_is_the_defaults,
        a_configuration_is_explained_and_its_faults_named,
        a_key_that_is_none_is_refused_with_the_nearest,
        a_variable_that_is_none_is_only_warned_about,
        whatever_connects_takes_credentials_and_a_namespace,
    ]
}

/// The one error that a command prints, which must be all that it says.
fn error(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let read: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(read["error"]["code"].as_i64(), output.status.code().map(i64::from), "{said}");
    read["error"].clone()
}

fn an_error_under_json_is_json() {
    let mut eval = uspx();
    eval.args(["eval", "--model", "/nowhere", "--prompts", "/nothing.jsonl", "--json"]);
    let found = error(&mut eval);
    assert_eq!(found["code"], NOT_FOUND);
    assert!(found["message"].as_str().unwrap().contains("/nothing.jsonl"), "{found}");
    assert!(found["help"].as_str().unwrap().contains("path"), "{found}");
    let found = error(on(&["probe", "patch", "--layers", "3..9"], "teacher", 1).arg("--json"));
    assert_eq!(found["code"], USAGE);
}

fn a_usage_error_under_json_is_json_too() {
    let found = error(uspx().args(["eval", "--json"]));
    let message = found["message"].as_str().unwrap();
    assert!(message.contains("--model") && message.contains("--prompts"), "{found}");
    assert!(found["help"].as_str().unwrap().starts_with("Usage: uspx eval"), "{found}");
    assert_eq!(found["code"], USAGE);
}

fn what_a_role_lacks_is_named_at_once() {
    let ways = |flag: &str, key: &str| format!("--{flag}, USPX_{} or {key} in", key.to_uppercase());
    let of = |keys: &[&str]| keys.iter().map(|key| ways(key, key)).collect::<Vec<_>>();
    let all = of(&["nats", "store", "state", "train", "gate"]);
    refuses(uspx().arg("coordinator"), USAGE, &all.iter().map(String::as_str).collect::<Vec<_>>());
    let all = of(&["nats", "store", "name", "models"]);
    refuses(uspx().arg("worker"), USAGE, &all.iter().map(String::as_str).collect::<Vec<_>>());
}

fn a_configuration_is_written_once_and_is_the_defaults() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("uspx.toml");
    let init = || {
        let mut command = uspx();
        command.args(["config", "init", "--out"]).arg(&path);
        command
    };
    init().assert().success();
    let written = fs::read(&path).unwrap();
    refuses(&mut init(), REFUSED, &["uspx.toml", "is there already", "--out"]);
    assert_eq!(fs::read(&path).unwrap(), written);
    let found = json(uspx().args(["config", "check", "-c"]).arg(&path));
    let values = found["roles"][0]["values"].as_array().unwrap();
    assert!(values.len() > 50, "{} keys", values.len());
    for value in values {
        let from = value["from"].as_str().unwrap();
        let usual = from == "default" || from == "missing" || from.starts_with("not set");
        assert!(usual, "{value}");
    }
}

fn a_configuration_is_explained_and_its_faults_named() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("uspx.toml");
    fs::write(&path, "nats = 'nats://box'\nname = 'one'\n[campaign.mask]\nkeep = 0.25\n").unwrap();
    let check = || {
        let mut command = uspx();
        command.args(["config", "check", "-c"]).arg(&path).env("USPX_STORE", "s3://b/p");
        command
    };
    let output = check().output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for words in [
        "store = \"s3://b/p\"  (USPX_STORE)",
        "campaign.mask.keep = 0.25  (",
        "lease = 60  (default)",
    ] {
        assert!(said.contains(words), "`{words}` in {said}");
    }
    let worker = check().args(["--role", "worker"]).output().unwrap();
    assert_eq!(worker.status.code(), Some(BAD_INPUT), "it lacks models");
    fs::write(&path, "[campaign.mask]\nkeep = 500000\n").unwrap();
    let found = error(check().arg("--json"));
    assert!(found["message"].as_str().unwrap().contains("0.5"), "{found}");
    assert_eq!(found["code"], BAD_INPUT);
}

fn a_key_that_is_none_is_refused_with_the_nearest() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("uspx.toml");
    fs::write(&path, "nats = 'nats://box'\n[campaign.mask]\nkeeep = 0.5\n").unwrap();
    for role in ["coordinator", "worker"] {
        let mut command = uspx();
        command.arg(role).arg("-c").arg(&path);
        refuses(&mut command, BAD_INPUT, &["`campaign.mask.keeep`", "`campaign.mask.keep`"]);
    }
}

fn a_variable_that_is_none_is_only_warned_about() {
    let output = uspx().arg("worker").env("USPX_STOER", "x").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("USPX_STOER") && said.contains("USPX_STORE?"), "{said}");
    assert_eq!(output.status.code(), Some(USAGE), "what ends it is what is missing");
}

fn whatever_connects_takes_credentials_and_a_namespace() {
    let folder = tempdir().unwrap();
    let prompts = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("{{\"prompt\": \"{text}\"}}\n{{\"prompt\": \"{text} too\"}}\n"))
            .unwrap();
        path
    };
    let (train, gate) = (prompts("train.jsonl", "a"), prompts("gate.jsonl", "b"));
    let mut coordinator = uspx();
    coordinator.args(["coordinator", "--state", "s", "--train"]).arg(train).arg("--gate").arg(gate);
    let mut worker = uspx();
    worker.args(["worker", "--name", "one", "--models", "m"]);
    for command in
        [coordinator.args(["--store", "x"]), worker.args(["--store", "x"]), uspx().arg("status")]
    {
        command.args(["--nats", "nats://127.0.0.1:1", "--namespace", "no.name"]);
        refuses(command, USAGE, &["`no.name` cannot be a name on the bus"]);
        command.args(["--credentials", "/nowhere/colony.creds"]);
        refuses(command, NOT_FOUND, &["/nowhere/colony.creds"]);
    }
}

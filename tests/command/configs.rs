//! What `uspx` makes of folders whose config.json and weights were written by others.

use crate::students::{student, write};
use crate::support::{BAD_INPUT, USAGE, copied, json, model, prompts, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::{Value, json as value};
use std::path::Path;
use tempfile::tempdir;
use uspx_domain::ExportFormat;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        gptq_is_recognised_by_either_file,
        weights_that_are_not_what_the_configuration_says_are_explained,
        what_is_passed_over_is_named_once,
    ]
}

fn eval(folder: &Path) -> Command {
    let mut command = uspx();
    command.args(["eval", "--threads", "1", "--limit", "2", "--model"]).arg(folder);
    command.arg("--prompts").arg(prompts("cli-heldout.jsonl"));
    command
}

fn edit(folder: &Path, change: impl Fn(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

fn gptq_is_recognised_by_either_file() {
    let folder = tempdir().unwrap();
    write(&student(), ExportFormat::Gptq, folder.path());
    let wanted = json(&mut eval(folder.path()))["loss"].clone();
    let apart = folder.path().join("quantize_config.json");
    let stated = std::fs::read(&apart).unwrap();
    std::fs::remove_file(&apart).unwrap();
    assert_eq!(json(&mut eval(folder.path()))["loss"], wanted);
    refuses(eval(folder.path()).arg("--stream"), USAGE, &["4-bit students"]);
    std::fs::write(&apart, stated).unwrap();
    edit(folder.path(), |config| config["quantization_config"] = Value::Null);
    assert_eq!(json(&mut eval(folder.path()))["loss"], wanted);
    std::fs::remove_file(&apart).unwrap();
    let place = folder.path().display().to_string();
    refuses(
        &mut eval(folder.path()),
        BAD_INPUT,
        &[&place, "packed as GPTQ", "quantization_config"],
    );
}

fn weights_that_are_not_what_the_configuration_says_are_explained() {
    let folder = tempdir().unwrap();
    copied(&model("teacher"), folder.path());
    edit(folder.path(), |config| config["quantization_config"] = Value::Null);
    let place = folder.path().display().to_string();
    refuses(
        &mut eval(folder.path()),
        BAD_INPUT,
        &[&place, "stored in MXFP4", "add \"quantization_config\""],
    );
}

fn what_is_passed_over_is_named_once() {
    let folder = tempdir().unwrap();
    copied(&model("student"), folder.path());
    edit(folder.path(), |config| {
        config["magic_scale"] = value!(2.0);
        config["num_hidden_layers"] = value!(3);
    });
    let output = eval(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for word in ["magic_scale", "model.layers.3.mlp.down_proj.weight", "and 1 more"] {
        assert_eq!(said.matches(word).count(), 1, "`{word}` in {said}");
    }
    assert!(said.contains(&folder.path().display().to_string()), "{said}");
    let untouched = eval(&model("student")).output().unwrap();
    assert!(
        !String::from_utf8_lossy(&untouched.stderr).contains("WARN"),
        "nothing is to be said of a shipped model"
    );
}

//! Whole layers of a student: dropped by what they cost, written without, and in 4 bits after.

use crate::support::{BAD_INPUT, REFUSED, USAGE, json, model, on, prompts, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::tempdir;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_student_without_whole_layers_scores_as_under_the_mask_and_is_exported,
        flags_that_mean_no_whole_layers_are_refused,
    ]
}

fn build(which: &str, flags: &[&str], out: &Path) -> Command {
    let mut command = on(&["mask", "build", "--spread=layers", "--out"], which, 4);
    command.arg(out).args(flags);
    command
}

fn loss(model: &Path, flags: &[&str]) -> f64 {
    let mut command = uspx();
    command.args(["eval", "--threads=1", "--limit=24", "--model"]).arg(model).args(flags);
    let report = json(command.arg("--prompts").arg(prompts("cli-heldout.jsonl")));
    report["loss"].as_f64().unwrap()
}

fn a_student_without_whole_layers_scores_as_under_the_mask_and_is_exported() {
    let folder = tempdir().unwrap();
    let (mask, out) = (folder.path().join("mask.json"), folder.path().join("cut"));
    let built = json(&mut build("student", &["--units=head,channel", "--keep=0.5"], &mask));
    let gone: Vec<u64> = built["layers_gone"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gone| gone["layer"].as_u64().unwrap())
        .collect();
    let lists = built["keep"]["head"].as_array().unwrap();
    for (layer, heads) in lists.iter().enumerate() {
        let heads = heads.as_array().unwrap().len();
        assert_eq!(heads, if gone.contains(&(layer as u64)) { 0 } else { 4 });
    }
    assert_eq!((gone.len(), lists.len()), (2, 4));
    assert!(built["layers_gone"][1]["rise"].as_f64() >= built["layers_gone"][0]["rise"].as_f64());

    let mut export = uspx();
    export.args(["mask", "export", "--model"]).arg(model("student")).arg("--mask").arg(&mask);
    let report = json(export.arg("--out").arg(&out));
    assert_eq!((&report["layers"], &report["before"]["layers"]), (&json!(2), &json!(4)));
    let config = std::fs::read_to_string(out.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["num_hidden_layers"], 2);
    let masked = loss(&model("student"), &["--mask", mask.to_str().unwrap()]);
    let cut = loss(&out, &[]);
    assert!((cut - masked).abs() < 1e-5, "{cut} against {masked}");

    for (format, file) in [("gptq", ""), ("gguf", "student.gguf")] {
        let written = folder.path().join(format);
        let mut export = uspx();
        export.args(["export", "--threads=1", "--limit=8", "--finish=0", "--format", format]);
        export.arg("--model").arg(&out).arg("--prompts").arg(prompts("cli-train.jsonl"));
        json(export.arg("--out").arg(&written));
        let four_bit = loss(&written.join(file), &[]);
        assert!((four_bit - cut).abs() < 0.2, "{format}: {four_bit} of {cut}");
    }
    let said = build("student", &["--units=channel,head", "--keep=0.75"], &mask).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("layers that go") && said.contains("the cut costs"), "{said}");
}

fn flags_that_mean_no_whole_layers_are_refused() {
    let folder = tempdir().unwrap();
    let mask = folder.path().join("mask.json");
    for (which, flags, code, words) in [
        ("student", &["--units=head", "--keep=0.5"][..], USAGE, ["together", "--spread layers"]),
        (
            "student",
            &["--units=head,channel", "--keep=head=0.5,channel=0.75"],
            USAGE,
            ["whole layers", "one share"],
        ),
        (
            "student",
            &["--units=head,channel", "--keep=0.5", "--method=atp"],
            USAGE,
            ["exactly", "leave out --method"],
        ),
        (
            "teacher",
            &["--units=head,channel", "--keep=0.5"],
            BAD_INPUT,
            ["has experts", "--spread uniform"],
        ),
    ] {
        refuses(&mut build(which, flags, &mask), code, &words);
        assert!(!mask.exists());
    }
    // A mask that leaves nothing is made by hand.
    json(&mut build("student", &["--units=head,channel", "--keep=0.1"], &mask));
    let text = std::fs::read_to_string(&mask).unwrap();
    let mut empty: Value = serde_json::from_str(&text).unwrap();
    for kind in ["head", "channel"] {
        empty["keep"][kind] = json!([[], [], [], []]);
    }
    std::fs::write(&mask, empty.to_string()).unwrap();
    let mut export = uspx();
    export.args(["mask", "export", "--model"]).arg(model("student")).arg("--mask").arg(&mask);
    let out = folder.path().join("out");
    refuses(export.arg("--out").arg(&out), REFUSED, &["no model is left", "at least one layer"]);
    assert!(!out.exists());
}

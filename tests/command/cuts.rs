//! `uspx mask export`: the written folder is the masked model, to uspx and to whoever reads it; and
//! a refusal leaves nothing behind.

use crate::support::{
    BAD_INPUT, NOT_FOUND, REFUSED, USAGE, copied, json, model, on, prompts, refuses, uspx,
};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::tempdir;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_teacher_without_its_cut_experts_scores_as_under_the_mask,
        a_cut_teacher_is_a_model_like_others,
        a_student_without_its_cut_heads_and_channels_scores_as_under_the_mask,
        a_student_trained_while_its_mask_ramps_in_is_written_without_what_that_cuts,
        a_mask_that_cannot_be_carried_out_by_removing_experts_is_refused,
        what_is_there_is_never_written_over_and_nothing_half_made_stays,
    ]
}

fn export(model: &Path, mask: &Path, out: &Path) -> Command {
    let mut command = uspx();
    command.args(["mask", "export", "--model"]).arg(model).arg("--mask").arg(mask);
    command.arg("--out").arg(out);
    command
}

fn eval(model: &Path, flags: &[&str]) -> Value {
    let mut command = uspx();
    command.args(["eval", "--threads=1", "--limit=24", "--model"]).arg(model).args(flags);
    json(command.arg("--prompts").arg(prompts("cli-heldout.jsonl")))
}

/// A mask of the teacher's most used experts.
fn built(folder: &Path, flags: &[&str]) -> PathBuf {
    let path = folder.join("mask.json");
    let mut build =
        on(&["mask", "build", "--method=frequency", "--keep=0.5", "--out"], "teacher", 4);
    json(build.arg(&path).args(flags));
    path
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn a_teacher_without_its_cut_experts_scores_as_under_the_mask() {
    for spread in ["uniform", "global"] {
        let folder = tempdir().unwrap();
        let mask = built(folder.path(), &["--spread", spread]);
        let out = folder.path().join("cut");
        let report = json(&mut export(&model("teacher"), &mask, &out));
        let kept: Vec<usize> = report["experts_kept"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap() as usize)
            .collect();
        let (most, dead) = (*kept.iter().max().unwrap(), report["dead"].as_array().unwrap());
        assert_eq!(kept.iter().sum::<usize>(), 32, "{spread}");
        assert_eq!(report["experts"], most);
        assert_eq!(read(&out.join("config.json"))["num_local_experts"], most);
        assert!(dead.iter().zip(&kept).all(|(n, kept)| *n == most - kept));
        assert_eq!(dead.iter().any(|n| *n != 0), spread == "global", "{kept:?}");

        let mask = mask.to_str().unwrap();
        let masked = eval(&model("teacher"), &["--mask", mask]);
        for held in ["--memory=4GiB", "--stream"] {
            let cut = eval(&out, &[held]);
            for (a, b) in
                [(&cut["loss"], &masked["loss"]), (&cut["bits_per_byte"], &masked["bits_per_byte"])]
            {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                assert!((a - b).abs() < 1e-6, "{spread} {held}: {a} against {b} under the mask");
            }
        }
        assert_ne!(eval(&model("teacher"), &[])["loss"], masked["loss"]);
    }
}

/// It is traced, and masked and cut again; it has a fingerprint of its own.
fn a_cut_teacher_is_a_model_like_others() {
    let folder = tempdir().unwrap();
    let (mask, out) = (built(folder.path(), &["--spread=global"]), folder.path().join("cut"));
    let report = json(&mut export(&model("teacher"), &mask, &out));
    refuses(
        export(&out, &mask, &folder.path().join("twice")).arg("--json"),
        REFUSED,
        &["made for model", "uspx mask build"],
    );
    let trace = |which: &Path, words: &[&str]| {
        let mut command = uspx();
        command.args(words).args(["--threads=1", "--limit=4", "--model"]).arg(which);
        json(command.arg("--prompts").arg(prompts("cli-heldout.jsonl")))
    };
    let traced = trace(&out, &["probe", "trace"]);
    assert_eq!(traced["model"]["fingerprint"], report["fingerprint"]);
    assert_ne!(report["fingerprint"], report["source"]);
    for (layer, dead) in report["dead"].as_array().unwrap().iter().enumerate() {
        let counts = traced["experts"]["count"][layer].as_array().unwrap();
        let alive = counts.len() - dead.as_u64().unwrap() as usize;
        assert!(
            counts[alive..].iter().all(|n| n.as_f64() == Some(0.0)),
            "a dead expert is never chosen: {counts:?}"
        );
    }
    let second = folder.path().join("second.json");
    let second_out = second.to_str().unwrap();
    trace(&out, &["mask", "build", "--keep=0.7", "--method=reroute", "--out", second_out]);
    let again = folder.path().join("again");
    let again_report = json(&mut export(&out, &second, &again));
    assert_eq!(again_report["source"], report["fingerprint"]);
    let masked = eval(&out, &["--mask", second_out])["loss"].as_f64().unwrap();
    assert!((eval(&again, &[])["loss"].as_f64().unwrap() - masked).abs() < 1e-6);
}

/// Of each KV head one of two query heads, and two thirds of the channels; a mask of the same size
/// spread over all layers is refused.
fn a_student_without_its_cut_heads_and_channels_scores_as_under_the_mask() {
    let folder = tempdir().unwrap();
    let build = |keep: &str, spread: &str| {
        let path = folder.path().join(format!("{spread}.json"));
        let words =
            ["mask", "build", "--units=head,channel", "--method=atp", "--search=2", "--out"];
        let mut command = on(&words, "student", 4);
        command.arg(&path).args(["--keep", keep, "--spread", spread]);
        (path, command)
    };
    let (mask, mut command) = build("head=0.5,channel=0.6667", "uniform");
    let built = json(&mut command);
    for heads in built["keep"]["head"].as_array().unwrap() {
        let heads: Vec<u64> =
            heads.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert!(
            heads.len() == 2 && heads[0] < 2 && heads[1] >= 2,
            "one of each KV head: {heads:?}"
        );
    }
    let out = folder.path().join("cut");
    let report = json(&mut export(&model("student"), &mask, &out));
    assert_eq!((&report["heads"], &report["kv_heads"]), (&json!(2), &json!(2)));
    assert_eq!((&report["channels"], &report["before"]["channels"]), (&json!(256), &json!(384)));
    let masked = eval(&model("student"), &["--mask", mask.to_str().unwrap()]);
    let (a, b) = (eval(&out, &[])["loss"].as_f64().unwrap(), masked["loss"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-5 && eval(&model("student"), &[])["loss"] != b, "{a} against {b}");

    let (ragged, mut command) = build("0.7", "global");
    json(&mut command);
    let mut twice = export(&model("student"), &ragged, &folder.path().join("ragged"));
    refuses(&mut twice, REFUSED, &["one number", "--spread uniform"]);
    let (_, mut command) = build("head=0.5", "global");
    refuses(&mut command, USAGE, &["no share of channels", "channel=0.75"]);
    let (_, mut command) = build("0.5,expert=0.5", "global");
    refuses(&mut command, USAGE, &["--keep has a share of experts"]);
}

fn a_student_trained_while_its_mask_ramps_in_is_written_without_what_that_cuts() {
    let folder = tempdir().unwrap();
    let [mask, adapter, out, judged] =
        ["mask.json", "adapter", "half", "judged.jsonl"].map(|name| folder.path().join(name));
    let keep = ["--keep=head=0.5,channel=0.6667", "--spread=uniform"];
    let words = ["mask", "build", "--units=head,channel", "--method=atp", "--search=0", "--out"];
    json(on(&words, "student", 4).arg(&mask).args(keep));
    let text = fs::read_to_string(prompts("cli-heldout.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().take(16).collect();
    fs::write(&judged, lines.join("\n")).unwrap();

    let mut distil = uspx();
    distil.args(["distill", "--threads=1", "--limit=32", "--epochs=3", "--step-tokens=128"]);
    distil.args(["--rank=8", "--teacher"]).arg(model("teacher"));
    distil.arg("--student").arg(model("student")).arg("--student-mask").arg(&mask);
    distil.arg("--prompts").arg(prompts("cli-train.jsonl")).arg("--validation").arg(&judged);
    let told = json(distil.arg("--out").arg(&adapter));
    let [before, after] = ["loss_before", "loss_after"].map(|key| told[key].as_f64().unwrap());
    assert!(after < before, "nothing was learned: {told}");

    let report = json(export(&model("student"), &mask, &out).arg("--adapter").arg(&adapter));
    assert_eq!((&report["heads"], &report["channels"]), (&json!(2), &json!(256)));
    let mut command = uspx();
    command.args(["eval", "--threads=1", "--model"]).arg(&out);
    let loss = json(command.arg("--prompts").arg(&judged))["loss"].as_f64().unwrap();
    // Its weights are rounded to bf16, as the base's are.
    assert!((loss / after - 1.0).abs() < 5e-3, "{loss}, {after} when it was trained");
    let entries = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(entries, 4, "nothing stays of the whole student with its adapter");

    let teacher = built(folder.path(), &[]);
    let mut other = export(&model("teacher"), &teacher, &folder.path().join("x"));
    refuses(other.arg("--adapter").arg(&adapter), BAD_INPUT, &["experts"]);
}

fn a_mask_that_cannot_be_carried_out_by_removing_experts_is_refused() {
    let folder = tempdir().unwrap();
    let path = built(folder.path(), &[]);
    let (good, out) = (read(&path), folder.path().join("cut"));
    let with = |kind: &str, lists: Value| {
        let mut mask = good.clone();
        mask["keep"][kind] = lists;
        fs::write(&path, mask.to_string()).unwrap();
    };
    let refuses_with = |code, words: &[&str]| {
        refuses(&mut export(&model("teacher"), &path, &out), code, words);
        let entries = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(entries, 1, "nothing but the mask is there");
    };
    with("head", json!([[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]));
    refuses_with(REFUSED, &["also cuts 1 head,", "only experts", "uspx mask build --units expert"]);
    with("expert", Value::Null);
    refuses_with(REFUSED, &["keeps every expert"]);
    with("expert", json!([[3], [0, 1], [0, 1], [0, 1]]));
    refuses_with(BAD_INPUT, &["mask.json", "layer 0", "keep at least"]);
    fs::write(&path, "{}").unwrap();
    refuses_with(BAD_INPUT, &["mask.json", "not a mask"]);
    fs::write(&path, good.to_string()).unwrap();
    refuses(&mut export(&model("student"), &path, &out), REFUSED, &["made for model"]);
    let nowhere = folder.path().join("nowhere");
    refuses(&mut export(&nowhere, &path, &out), NOT_FOUND, &["no model", "nowhere"]);
    refuses(&mut export(&model("teacher"), &nowhere, &out), NOT_FOUND, &["nowhere"]);
    assert!(!out.exists());
}

fn what_is_there_is_never_written_over_and_nothing_half_made_stays() {
    let folder = tempdir().unwrap();
    let (mask, out) = (built(folder.path(), &[]), folder.path().join("cut"));
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "x").unwrap();
    refuses(&mut export(&model("teacher"), &mask, &out), BAD_INPUT, &["is there already", "--out"]);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    fs::remove_dir_all(&out).unwrap();
    // A model that ends in the middle of its weights, while they are copied.
    let broken = folder.path().join("broken");
    copied(&model("teacher"), &broken);
    let shard = broken.join("model-00002-of-00002.safetensors");
    let whole = fs::metadata(&shard).unwrap().len();
    fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(whole - 100).unwrap();
    refuses(&mut export(&broken, &mask, &out), BAD_INPUT, &["model-00002", "truncated"]);
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["broken", "mask.json"]);
}

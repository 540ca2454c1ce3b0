//! Bad input: the documented exit code, a message that names the thing and the remedy, and nothing
//! lost.

use crate::support::{
    BAD_INPUT, NOT_FOUND, REFUSED, UNREACHABLE, USAGE, copied, json, model, on, prompts, refuses,
    uspx,
};
use assert_cmd::Command;
use libtest_mimic::Trial;
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        the_copied_teacher_is_good_until_it_is_spoilt,
        a_missing_shard_is_named,
        a_truncated_shard_is_named_with_its_bytes,
        a_weight_that_is_not_a_number_is_named_held_and_streamed,
        a_vocabulary_smaller_than_the_tokenizer_is_refused,
        a_prompt_longer_than_the_context_is_named,
        a_memory_budget_decides_and_is_refused_where_it_is_too_small,
        an_unknown_architecture_is_named_with_those_known,
        a_tokenizer_without_a_template_is_refused_with_the_remedy,
        what_is_not_there_is_not_found,
        a_broken_line_is_numbered_and_can_be_skipped,
        an_empty_prompt_set_is_refused,
        a_mask_of_another_model_is_refused,
        a_mask_that_the_router_cannot_run_is_refused,
        a_mask_that_is_there_survives_a_build_that_fails,
        a_device_that_is_none_is_a_wrong_usage,
        a_command_line_that_makes_no_sense_ends_with_2,
        a_store_without_a_release_gives_nothing_to_pull,
        #[cfg(unix)]
        a_nats_server_that_is_too_old_is_refused_with_the_remedy,
        status_of_nothing_says_so,
    ]
}

/// A copy of the teacher to spoil.
fn teacher() -> TempDir {
    let folder = tempdir().unwrap();
    copied(&model("teacher"), folder.path());
    folder
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no `{from}` to spoil", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

fn eval(model: &Path, prompts: &Path) -> Command {
    let mut command = uspx();
    command
        .args(["eval", "--threads", "1", "--json", "--model"])
        .arg(model)
        .arg("--prompts")
        .arg(prompts);
    command
}

fn eval_of(model: &Path) -> Command {
    let mut command = eval(model, &prompts("cli-heldout.jsonl"));
    command.args(["--limit", "1"]);
    command
}

fn the_copied_teacher_is_good_until_it_is_spoilt() {
    assert_eq!(json(&mut on(&["eval"], "teacher", 1))["prompts"], 1);
    eval_of(teacher().path()).assert().success();
}

fn a_missing_shard_is_named() {
    let folder = teacher();
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    let words = ["model-00002-of-00002.safetensors", "missing", "fetch"];
    refuses(&mut eval_of(folder.path()), BAD_INPUT, &words);
}

fn a_truncated_shard_is_named_with_its_bytes() {
    let folder = teacher();
    let path = folder.path().join("model-00001-of-00002.safetensors");
    let whole = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole - 1).unwrap();
    let (whole, kept) = (whole.to_string(), (whole - 1).to_string());
    let words = ["model-00001-of-00002.safetensors", "truncated", whole.as_str(), kept.as_str()];
    refuses(&mut eval_of(folder.path()), BAD_INPUT, &words);
}

/// Sets the last bytes of a shard: they are of its last tensor.
fn spoil_end(path: &Path, bytes: &[u8]) {
    let mut whole = fs::read(path).unwrap();
    let at = whole.len() - bytes.len();
    whole[at..].copy_from_slice(bytes);
    fs::write(path, whole).unwrap();
}

fn a_weight_that_is_not_a_number_is_named_held_and_streamed() {
    let folder = teacher();
    // All ones are not a number in bf16, and as a scale of MXFP4.
    spoil_end(&folder.path().join("model-00001-of-00002.safetensors"), &[0xff; 8]);
    for flag in ["--memory=1GiB", "--stream"] {
        refuses(eval_of(folder.path()).arg(flag), BAD_INPUT, &["tensor", "finite", "fetch"]);
    }
}

fn a_vocabulary_smaller_than_the_tokenizer_is_refused() {
    let folder = teacher();
    replace(&folder.path().join("config.json"), "\"vocab_size\": 2048", "\"vocab_size\": 2000");
    refuses(&mut eval_of(folder.path()), BAD_INPUT, &["config.json", "2000", "tokenizer"]);
}

fn a_prompt_longer_than_the_context_is_named() {
    let folder = teacher();
    let key = "\"max_position_embeddings\": ";
    replace(&folder.path().join("config.json"), &format!("{key}131072"), &format!("{key}12"));
    refuses(&mut eval_of(folder.path()), BAD_INPUT, &["prompt cli-", "context is 12"]);
}

fn a_memory_budget_decides_and_is_refused_where_it_is_too_small() {
    let losses = ["--memory=4GiB", "--memory=250MiB", "--stream"].map(|flag| {
        let report = json(on(&["eval"], "teacher", 8).arg(flag));
        assert_eq!(report["streamed"], flag == "--stream", "{flag}");
        report["loss"].as_f64().unwrap()
    });
    assert!(losses.iter().all(|l| (l - losses[0]).abs() < 1e-6 * losses[0]), "{losses:?}");
    refuses(on(&["eval"], "teacher", 1).arg("--memory=10MiB"), BAD_INPUT, &["MiB", "--memory"]);
    refuses(on(&["eval"], "teacher", 1).arg("--memory=lots"), USAGE, &["lots"]);
}

fn an_unknown_architecture_is_named_with_those_known() {
    let folder = teacher();
    replace(&folder.path().join("config.json"), "\"gpt_oss\"", "\"mamba\"");
    refuses(&mut eval_of(folder.path()), BAD_INPUT, &["config.json", "mamba", "gpt_oss", "llama"]);
}

fn a_tokenizer_without_a_template_is_refused_with_the_remedy() {
    let folder = teacher();
    replace(&folder.path().join("tokenizer_config.json"), "\"chat_template\"", "\"no_template\"");
    refuses(
        &mut eval_of(folder.path()),
        BAD_INPUT,
        &["chat template", "chat_template.jinja", "instruct"],
    );
}

fn what_is_not_there_is_not_found() {
    let nothing = tempdir().unwrap();
    let missing = nothing.path().join("no-such-thing");
    let name = missing.display().to_string();
    refuses(&mut eval_of(&missing), NOT_FOUND, &["no model", &name]);
    refuses(&mut eval(&model("teacher"), &missing), NOT_FOUND, &[&name]);
    refuses(eval_of(&model("teacher")).arg("--mask").arg(&missing), NOT_FOUND, &[&name]);
    refuses(
        uspx().arg("coordinator").arg("-c").arg(&missing),
        NOT_FOUND,
        &["configuration", &name],
    );
    refuses(
        uspx().arg("run").arg("--from").arg(nothing.path()).arg("hi"),
        NOT_FOUND,
        &["no student", "uspx pull"],
    );
}

fn a_broken_line_is_numbered_and_can_be_skipped() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("mine.jsonl");
    let good = fs::read_to_string(prompts("cli-heldout.jsonl")).unwrap();
    let mut lines: Vec<&str> = good.lines().take(3).collect();
    lines.insert(2, "{\"id\": \"x\", \"prom");
    fs::write(&path, lines.join("\n")).unwrap();
    refuses(
        &mut eval(&model("teacher"), &path),
        BAD_INPUT,
        &["mine.jsonl", "line 3", "--skip-bad"],
    );

    let output = eval(&model("teacher"), &path).arg("--skip-bad").output().unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("line 3"),
        "what is skipped has to be said"
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["prompts"], 3);
}

fn an_empty_prompt_set_is_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("mine.jsonl");
    for content in ["", "\n\n"] {
        fs::write(&path, content).unwrap();
        refuses(&mut eval(&model("teacher"), &path), BAD_INPUT, &["mine.jsonl", "no prompts"]);
    }
    fs::write(&path, "no JSON\n").unwrap();
    refuses(
        eval(&model("teacher"), &path).arg("--skip-bad"),
        BAD_INPUT,
        &["mine.jsonl", "no prompts"],
    );
}

/// A mask of the teacher, as `mask build` writes it.
fn mask(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("mask.json");
    json(
        on(&["mask", "build", "--method", "frequency", "--keep", "0.5", "--out"], "teacher", 2)
            .arg(&path),
    );
    path
}

fn a_mask_of_another_model_is_refused() {
    let folder = tempdir().unwrap();
    let path = mask(folder.path());
    refuses(
        eval_of(&model("student")).arg("--mask").arg(&path),
        REFUSED,
        &["made for model", "uspx mask build"],
    );
    let mut ablate = on(&["probe", "ablate"], "student", 1);
    refuses(ablate.arg("--mask").arg(&path), REFUSED, &["made for model"]);
}

fn a_mask_that_the_router_cannot_run_is_refused() {
    let folder = tempdir().unwrap();
    let path = mask(folder.path());
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    value["keep"]["expert"][1] = serde_json::json!([3]);
    fs::write(&path, value.to_string()).unwrap();
    refuses(
        eval_of(&model("teacher")).arg("--mask").arg(&path),
        BAD_INPUT,
        &["mask.json", "layer 1", "keep at least"],
    );
    fs::write(&path, "{}").unwrap();
    refuses(
        eval_of(&model("teacher")).arg("--mask").arg(&path),
        BAD_INPUT,
        &["mask.json", "not a mask"],
    );
}

fn a_mask_that_is_there_survives_a_build_that_fails() {
    let folder = tempdir().unwrap();
    let path = mask(folder.path());
    let before = fs::read(&path).unwrap();
    let empty = folder.path().join("empty.jsonl");
    fs::write(&empty, "").unwrap();
    let mut build = uspx();
    build.args(["mask", "build", "--keep", "0.5", "--model"]).arg(model("teacher"));
    refuses(build.arg("--prompts").arg(&empty).arg("--out").arg(&path), BAD_INPUT, &["no prompts"]);
    let mut share = on(&["mask", "build", "--keep", "1.5", "--out"], "teacher", 1);
    refuses(share.arg(&path), USAGE, &["1.5", "not a share"]);
    let mut heads = on(
        &["mask", "build", "--keep", "0.5", "--units", "head", "--method", "reap", "--out"],
        "teacher",
        1,
    );
    refuses(heads.arg(&path), USAGE, &["reap does not rank heads", "norm"]);
    assert_eq!(fs::read(&path).unwrap(), before);
}

fn a_device_that_is_none_is_a_wrong_usage() {
    refuses(
        eval_of(&model("teacher")).args(["--device", "tpu:7"]),
        USAGE,
        &["tpu:7", "cpu", "cuda:0", "metal"],
    );
    refuses(eval_of(&model("teacher")).args(["--device", "cuda:x"]), USAGE, &["cuda:x"]);
    refuses(eval_of(&model("teacher")).env("USPX_DEVICE", "gpu"), USAGE, &["gpu"]);
}

fn a_command_line_that_makes_no_sense_ends_with_2() {
    refuses(uspx().args(["eval", "--bogus"]), USAGE, &["--bogus", "Usage"]);
    refuses(uspx().arg("evil"), USAGE, &["evil"]);
    refuses(&mut uspx(), USAGE, &["Usage"]);
    refuses(
        on(&["probe", "patch", "--layers", "3..9"], "teacher", 1).arg("--json"),
        USAGE,
        &["3..9", "A..B"],
    );
    refuses(
        &mut on(&["eval", "--mask", "a", "--against", "b"], "teacher", 1),
        USAGE,
        &["--against"],
    );
}

fn a_store_without_a_release_gives_nothing_to_pull() {
    let folder = tempdir().unwrap();
    let (store, into) = (folder.path().join("store"), folder.path().join("into"));
    fs::create_dir(&store).unwrap();
    let pull = |store: &Path| {
        let mut command = uspx();
        command.arg("pull").arg(store).arg("--into").arg(&into);
        command
    };
    refuses(&mut pull(&store), NOT_FOUND, &["nothing is published", &store.display().to_string()]);
    refuses(pull(&store).args(["--release", "7"]), NOT_FOUND, &["7"]);
    refuses(&mut pull(&folder.path().join("nowhere")), NOT_FOUND, &["nowhere"]);
    refuses(uspx().arg("pull").arg("--into").arg(&into), USAGE, &["name the store"]);
    refuses(uspx().args(["pull", "ftp://box/x", "--into"]).arg(&into), USAGE, &["ftp://", "s3://"]);
}

#[cfg(unix)]
fn a_nats_server_that_is_too_old_is_refused_with_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().unwrap();
    let old = folder.path().join("old-nats");
    fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.9.10'\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    let mut demo = uspx();
    demo.args(["demo", "--nats", "auto", "--json", "--out"]).arg(folder.path().join("demo"));
    let words = ["old-nats", "2.9.10", "2.10.27 or newer", "deploy/get-nats-server.sh"];
    refuses(demo.env("USPX_NATS_SERVER", &old), REFUSED, &words);
}

fn status_of_nothing_says_so() {
    let folder = tempdir().unwrap();
    refuses(uspx().arg("status"), USAGE, &["--nats", "--state"]);
    refuses(uspx().args(["status", "--state"]).arg(folder.path()), NOT_FOUND, &["status.json"]);
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("nats://127.0.0.1:{port}");
    refuses(uspx().args(["status", "--nats", &url]), UNREACHABLE, &["cannot reach", &url]);
}

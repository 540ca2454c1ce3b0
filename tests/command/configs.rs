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
        #[cfg(unix)]
        numbers_are_held_against_the_tensors_before_anything_is_made_of_them,
        #[cfg(unix)]
        token_ids_are_held_against_the_vocabulary,
        #[cfg(unix)]
        an_index_names_files_of_its_folder_and_not_thousands,
        #[cfg(unix)]
        a_template_without_an_end_is_the_reason_why_a_prompt_is_left_out,
        #[cfg(unix)]
        counts_of_a_gguf_file_make_nothing,
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

/// `uspx eval` on one prompt with 3 GiB of address space: what allocates by a number of a file ends
/// without an exit code.
#[cfg(unix)]
fn bounded(folder: &Path) -> Command {
    let mut command = Command::new("sh");
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("USPX_")) {
        command.env_remove(key);
    }
    command.env("HOME", "/dev/null/home").env("RAYON_NUM_THREADS", "1").env("NO_COLOR", "1");
    command.timeout(std::time::Duration::from_secs(120));
    command.args(["-c", "ulimit -v 3145728 && exec \"$0\" \"$@\""]).arg(uspx_tests::uspx());
    command.args(["eval", "--threads", "1", "--limit", "1", "--model"]).arg(folder);
    command.arg("--prompts").arg(prompts("cli-heldout.jsonl"));
    command
}

#[cfg(unix)]
fn numbers_are_held_against_the_tensors_before_anything_is_made_of_them() {
    let folder = tempdir().unwrap();
    copied(&model("teacher"), folder.path());
    bounded(folder.path()).assert().success();
    let original = std::fs::read(folder.path().join("config.json")).unwrap();
    const HUGE: u64 = 1_000_000_000_000;
    let shape = "config.json asks for";
    for (key, number, words) in [
        ("num_hidden_layers", HUGE, "at most 1024"),
        ("num_hidden_layers", 1000, "hold 4 layers"),
        ("num_local_experts", HUGE, "at most 65536"),
        ("num_local_experts", 60_000, shape),
        ("num_experts_per_tok", HUGE, "at most"),
        ("vocab_size", HUGE, "at most 4194304"),
        ("vocab_size", 4_000_000, shape),
        ("hidden_size", HUGE, "at most"),
        ("hidden_size", 16_000_000, shape),
        ("num_attention_heads", HUGE, "at most 65536"),
        ("num_attention_heads", 64_000, shape),
        ("head_dim", HUGE, "at most"),
        ("head_dim", 16_000_000, shape),
        ("intermediate_size", HUGE, "at most"),
        ("intermediate_size", 16_000_000, shape),
        ("max_position_embeddings", HUGE, "at most 16777216"),
        ("sliding_window", HUGE, "at most 16777216"),
    ] {
        std::fs::write(folder.path().join("config.json"), &original).unwrap();
        edit(folder.path(), |config| {
            config[key] = number.into();
            config["layer_types"] = Value::Null;
            if key == "num_local_experts" {
                config["num_experts"] = Value::Null;
            }
            if key == "num_experts_per_tok" {
                config["experts_per_token"] = Value::Null;
            }
        });
        for flag in ["--memory=1GiB", "--stream"] {
            refuses(bounded(folder.path()).arg(flag), BAD_INPUT, &[words]);
        }
    }
    std::fs::write(folder.path().join("config.json"), &original).unwrap();
    edit(folder.path(), |config| config["rope_scaling"]["factor"] = value!(1e300));
    refuses(&mut bounded(folder.path()), BAD_INPUT, &["the context is stretched to"]);
}

#[cfg(unix)]
fn token_ids_are_held_against_the_vocabulary() {
    let change = |file: &str, change: &dyn Fn(&mut Value)| {
        let folder = tempdir().unwrap();
        copied(&model("student"), folder.path());
        let path = folder.path().join(file);
        let mut content: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut content);
        std::fs::write(path, content.to_string()).unwrap();
        folder
    };
    let added = |id: u64| {
        change("tokenizer.json", &move |tokenizer| {
            let token = value!({"id": id, "content": "<|far|>", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true});
            tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
        })
    };
    let known = |id: u64| {
        change("tokenizer.json", &move |tokenizer| tokenizer["model"]["vocab"]["far"] = id.into())
    };
    for (folder, words) in [
        (added(4_000_000_000), "has id 4000000000, below 4194304 is expected"),
        (known(4_000_000_000), "has id 4000000000, below 4194304 is expected"),
        (added(4_000_000), "knows 4000001 tokens"),
        (
            change("generation_config.json", &|g| g["eos_token_id"] = 4_000_000_000_u64.into()),
            "token 4000000000 is to end an answer",
        ),
    ] {
        refuses(&mut bounded(folder.path()), BAD_INPUT, &[words]);
    }
}

#[cfg(unix)]
fn an_index_names_files_of_its_folder_and_not_thousands() {
    let folder = tempdir().unwrap();
    copied(&model("teacher"), folder.path());
    let index = folder.path().join("model.safetensors.index.json");
    let map = |names: &[String]| {
        let map: serde_json::Map<String, Value> =
            names.iter().map(|name| (name.clone(), name.clone().into())).collect();
        std::fs::write(&index, value!({ "weight_map": map }).to_string()).unwrap();
    };
    for name in ["../model.safetensors", "/etc/passwd", "..", "a/b.safetensors"] {
        map(&[name.to_owned()]);
        refuses(&mut bounded(folder.path()), BAD_INPUT, &["must name files of this folder"]);
    }
    map(&(0..1001).map(|n| format!("model-{n}.safetensors")).collect::<Vec<_>>());
    refuses(&mut bounded(folder.path()), BAD_INPUT, &["names 1001 files", "at most 1000"]);
    // A pipe that nobody writes to.
    let pipe = folder.path().join("pipe.safetensors");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    map(&["pipe.safetensors".to_owned()]);
    refuses(&mut bounded(folder.path()), BAD_INPUT, &["pipe.safetensors", "is not a file"]);
}

#[cfg(unix)]
fn a_template_without_an_end_is_the_reason_why_a_prompt_is_left_out() {
    let folder = tempdir().unwrap();
    copied(&model("student"), folder.path());
    for template in [
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% for i in range(90000) %}{{ messages[0].content * 1000 }}{% endfor %}",
        "{{ 'x' * 10 ** 10 }}",
    ] {
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let mut eval = bounded(folder.path());
        refuses(eval.arg("--json"), BAD_INPUT, &["template"]);
    }
}

#[cfg(unix)]
fn counts_of_a_gguf_file_make_nothing() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("student.gguf");
    write(&student(), ExportFormat::GGUF, folder.path());
    let whole = std::fs::read(&path).unwrap();
    for (at, count, words) in [
        (8, 1u64 << 60, "at most 65536"),
        (16, 1 << 60, "at most 65536"),
        (24, 1 << 39, "announced"),
    ] {
        let mut spoilt = whole.clone();
        spoilt[at..at + 8].copy_from_slice(&count.to_le_bytes());
        std::fs::write(&path, spoilt).unwrap();
        // Most of it is not on the disk.
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        refuses(&mut bounded(&path), BAD_INPUT, &["student.gguf", words]);
    }
}

fn gptq_is_recognised_by_either_file() {
    let folder = tempdir().unwrap();
    write(&student(), ExportFormat::GPTQ, folder.path());
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

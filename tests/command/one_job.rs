//! `uspx distill` and `uspx export`: one job without a colony, what it writes, and that it leaves
//! nothing half-made.

use crate::support::{BAD_INPUT, NOT_FOUND, REFUSED, USAGE, json, model, prompts, refuses, uspx};
use assert_cmd::Command;
use candle_core::{DType, Device};
use libtest_mimic::Trial;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::{TempDir, tempdir};
use uspx_domain::{ExportFormat, Prompt, parse_prompts};
use uspx_export::gguf::file::GgufFile;
use uspx_export::{formats, open_any};
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, NoProgress, Placement};
use uspx_probe::evaluate::{Against, evaluate};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        a_student_is_distilled_exported_and_makes_the_losses_that_were_told,
        prompts_are_held_out_where_none_are_given_to_stop_by,
        what_makes_no_sense_is_refused_before_any_work_and_leaves_nothing,
        an_adapter_of_another_base_is_refused,
        #[cfg(unix)]
        ctrl_c_ends_a_training_and_leaves_nothing,
        #[cfg(unix)]
        with_a_checkpoint_a_training_goes_on_where_ctrl_c_ended_it,
    ]
}

/// Prompts that the student learns, and those that it is judged by.
const LEARNED: usize = 32;
const JUDGED: usize = 16;

/// A folder with the validation prompts' file, to write into.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempdir().unwrap();
        // Train prompts under other names: what is learned in seconds is learned by heart.
        let text = fs::read_to_string(prompts("cli-train.jsonl")).unwrap();
        let renamed = |line: &str| line.replacen("\"id\": \"", "\"id\": \"judged-", 1);
        let lines: Vec<String> = text.lines().take(JUDGED).map(renamed).collect();
        fs::write(folder.path().join("validation.jsonl"), lines.join("\n")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What lies here besides the prompts.
    fn made(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "validation.jsonl").collect()
    }

    /// The arguments of `uspx distill` on the shipped pair.
    fn distilling(&self, words: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["distill".into()];
        for (flag, path) in [
            ("--teacher", model("teacher")),
            ("--student", model("student")),
            ("--prompts", prompts("cli-train.jsonl")),
            ("--out", self.path("adapter")),
        ] {
            arguments.extend([flag.into(), path.into()]);
        }
        let limit = LEARNED.to_string();
        arguments.extend(["--threads", "1", "--limit", &limit].iter().chain(words).map(Into::into));
        arguments
    }

    fn distill(&self, words: &[&str]) -> Command {
        let mut command = uspx();
        command.args(self.distilling(words));
        command
    }

    fn trained(&self) -> Value {
        let validation = self.path("validation.jsonl");
        let words = ["--epochs", "3", "--step-tokens", "128", "--rank", "8", "--validation"];
        json(&mut self.distill(&[&words[..], &[validation.to_str().unwrap()]].concat()))
    }

    fn export(&self, format: &str, words: &[&str]) -> Command {
        self.export_to(&format!("as-{format}"), format, words)
    }

    fn export_to(&self, out: &str, format: &str, words: &[&str]) -> Command {
        let mut command = uspx();
        command.args(["export", "--format", format, "--model"]).arg(model("student"));
        command.arg("--prompts").arg(prompts("cli-train.jsonl"));
        command.arg("--out").arg(self.path(out));
        command.args(["--threads", "1", "--limit", "16"]);
        command.args(words);
        command
    }

    fn judged(&self) -> Vec<Prompt> {
        let text = fs::read_to_string(self.path("validation.jsonl")).unwrap();
        parse_prompts(&text, false).unwrap().prompts
    }

    /// Nats per response token of a model on the validation prompts.
    fn loss(&self, model: &LoadedModel) -> f64 {
        let prompts = model.readable(&self.judged()).unwrap();
        let found =
            evaluate(model, &prompts, 2048, &mut NoTaps, &Against::Nothing, &NoProgress).unwrap();
        let nats: f64 = found.losses.nats.iter().map(|n| f64::from(*n)).sum();
        let tokens: u32 = found.losses.prompts.iter().map(|p| p.tokens).sum();
        nats / f64::from(tokens)
    }
}

fn placement() -> Placement {
    Placement::floats(DType::F32, &Device::Cpu)
}

fn student() -> LoadedModel {
    LoadedModel::open(&model("student"), placement()).unwrap()
}

fn a_student_is_distilled_exported_and_makes_the_losses_that_were_told() {
    let world = World::new();
    let told = world.trained();
    assert_eq!(
        (told["prompts"].as_u64(), told["validation_prompts"].as_u64()),
        (Some(32), Some(16))
    );
    assert_eq!(world.made(), ["adapter"]);
    let of = |key: &str| told[key].as_f64().unwrap();

    let mut trained = student();
    let before = world.loss(&trained);
    let bytes = fs::read(world.path("adapter/adapter_model.safetensors")).unwrap();
    uspx_distill::load_adapter(&mut trained, &bytes).unwrap();
    let after = world.loss(&trained);
    assert!((before - of("loss_before")).abs() < 1e-4, "{before} was told as {told}");
    assert!((after - of("loss_after")).abs() < 1e-4, "{after} was told as {told}");
    assert!(after < before, "nothing was learned: {told}");
    let config = fs::read(world.path("adapter/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["peft_type"], &config["r"]), (&"LORA".into(), &8.into()));

    let adapter = world.path("adapter");
    for format in ExportFormat::ALL {
        let words = ["--adapter", adapter.to_str().unwrap()];
        let told = json(&mut world.export(format.name(), &words));
        assert_eq!((&told["format"], &told["prompts"]), (&format.name().into(), &16.into()));
        is_the_trained_student(&world, *format, after);
    }
    let again = ["--adapter", adapter.to_str().unwrap()];
    // As floats it is the trained student but for the rounding of its type, and an ordinary base.
    let told = json(&mut world.export("hf", &again));
    assert_eq!((&told["format"], &told["dtype"]), (&"hf".into(), &stored_type().into()));
    let loss = world.loss(&LoadedModel::open(&world.path("as-hf"), placement()).unwrap());
    assert!((loss / after - 1.0).abs() < 1e-3, "{loss}, {after}");
    let finished = [&again[..], &["--finish", "2"]].concat();
    refuses(&mut world.export_to("no", "hf", &finished), USAGE, &["--finish"]);
    refuses(&mut world.export("gguf", &again), BAD_INPUT, &["as-gguf is there already"]);
}

/// The type that the base's weights are stored in, in the words of `uspx export`.
fn stored_type() -> &'static str {
    let config: Value =
        serde_json::from_slice(&fs::read(model("student").join("config.json")).unwrap()).unwrap();
    let said = config.get("dtype").or_else(|| config.get("torch_dtype"));
    match said.and_then(Value::as_str) {
        Some("float16") => "f16",
        Some("bfloat16") => "bf16",
        _ => "f32",
    }
}

/// What was written opens from its files alone, and four bits cost it little.
fn is_the_trained_student(world: &World, format: ExportFormat, trained: f64) {
    let folder = world.path(&format!("as-{format}"));
    let path = formats::of(format).unwrap().path(&folder);
    let loss = world.loss(&open_any(&path, placement()).unwrap());
    assert!(loss != trained && (loss / trained - 1.0).abs() < 0.05, "{format}: {loss}, {trained}");
    if format == ExportFormat::GGUF {
        let file = GgufFile::open(&path).unwrap();
        let name = file.metadata().get("general.name").unwrap().to_string().unwrap();
        assert_eq!(name, "as-gguf");
    }
}

fn prompts_are_held_out_where_none_are_given_to_stop_by() {
    let world = World::new();
    let told = json(&mut world.distill(&["--epochs", "1", "--rank", "2"]));
    assert_eq!(
        (told["prompts"].as_u64(), told["validation_prompts"].as_u64()),
        (Some(29), Some(3))
    );
    let lone = world.path("one.jsonl");
    let text = fs::read_to_string(prompts("cli-train.jsonl")).unwrap();
    fs::write(&lone, text.lines().next().unwrap()).unwrap();
    let mut command = uspx();
    command.arg("distill").arg("--teacher").arg(model("teacher")).arg("--student");
    command.arg(model("student")).arg("--prompts").arg(lone).arg("--out").arg(world.path("lone"));
    refuses(&mut command, BAD_INPUT, &["one to stop by", "more prompts"]);
}

fn what_makes_no_sense_is_refused_before_any_work_and_leaves_nothing() {
    let world = World::new();
    let refused = |command: &mut Command, code, words: &[&str]| {
        refuses(command, code, words);
        assert_eq!(world.made(), [""; 0], "{words:?}");
    };
    let distill = |words: &[&str], code, said: &[&str]| {
        refused(&mut world.distill(words), code, said);
    };
    distill(&["--teacher-weight", "2"], USAGE, &["teacher_weight is 2"]);
    distill(&["--epochs", "0"], USAGE, &["epochs"]);
    distill(&["--loss", "secret"], USAGE, &["--loss", "hybrid, alm, gold"]);
    distill(&["--top-k", "0"], USAGE, &["top_k is 0"]);
    distill(&["--sampled", "0"], USAGE, &["the number of draws is 0"]);
    distill(&["--sampled", "8", "--top-k", "8"], USAGE, &["--sampled", "--top-k"]);
    distill(&["--sampled", "8", "--on-policy", "2"], USAGE, &["--sampled", "--on-policy"]);
    distill(&["--sampled", "8", "--loss", "gold"], USAGE, &["likeliest", "leave one"]);
    distill(&["--student-mask", "/no/such"], NOT_FOUND, &["/no/such"]);
    distill(&["--student-mask", "m", "--machines", "2"], USAGE, &["--student-mask", "--machines"]);
    distill(&["--student-mask", "m", "--on-policy", "2"], USAGE, &["--on-policy"]);
    distill(&["--ramp", "0.5"], USAGE, &["--student-mask"]);
    distill(&["--student-mask", "m", "--ramp", "2"], USAGE, &["0 to 1"]);
    distill(&["--dtype", "bf16"], USAGE, &["bf16 is for GPUs"]);
    distill(&["--validation", "/no/such"], NOT_FOUND, &["/no/such"]);
    distill(&["--mask", "/no/such"], NOT_FOUND, &["/no/such"]);
    let (gone, there) = (world.path("gone"), model("student"));
    let pair = |teacher: &Path, student: &Path, code, said: &[&str]| {
        let mut command = uspx();
        command.arg("distill").arg("--teacher").arg(teacher).arg("--student").arg(student);
        command.arg("--prompts").arg(prompts("cli-train.jsonl")).args(["--limit", "4", "--out"]);
        refused(command.arg(world.path("x")), code, said);
    };
    pair(&gone, &there, NOT_FOUND, &["no model at", "gone"]);
    pair(&there, &gone, NOT_FOUND, &["no model at", "gone"]);
    pair(&there, &model("teacher"), BAD_INPUT, &["experts"]);
    let export = |words: &[&str], code, said: &[&str]| {
        refused(&mut world.export("gptq", words), code, said);
    };
    export(&["--memory", "1MiB"], BAD_INPUT, &["exported", "--memory"]);
    export(&["--adapter", "/no/such"], NOT_FOUND, &["/no/such"]);
    let tokenizer = model("student").join("tokenizer.json");
    export(&["--adapter", tokenizer.to_str().unwrap()], BAD_INPUT, &["not a usable adapter"]);
    refused(&mut world.export("awq", &[]), USAGE, &["awq", "gptq, rtn, gguf"]);
    refused(&mut world.export_to("no/parent", "gptq", &[]), NOT_FOUND, &["no does not exist"]);
}

fn an_adapter_of_another_base_is_refused() {
    let world = World::new();
    world.trained();
    let other = world.path("other");
    crate::support::copied(&model("student"), &other);
    // Another way to begin an answer is another base: its tokens are not those trained on.
    let path = other.join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let template = config["chat_template"].as_str().unwrap().to_owned();
    config["chat_template"] = format!("{template}{{# another #}}").into();
    fs::write(&path, config.to_string()).unwrap();
    let mut command = uspx();
    command.args(["export", "--format", "rtn", "--limit", "4", "--model"]).arg(&other);
    command.arg("--adapter").arg(world.path("adapter")).arg("--prompts");
    command.arg(prompts("cli-train.jsonl")).arg("--out").arg(world.path("x"));
    refuses(&mut command, REFUSED, &["trained on base", "load that base"]);
    assert!(!world.path("x").exists());
}

/// Begins a training, and ends it by Ctrl-C at one of its first steps.
#[cfg(unix)]
fn interrupt(world: &World, words: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(uspx_tests::uspx());
    command.args(world.distilling(words)).env("RAYON_NUM_THREADS", "1");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let training = |line: &String| line.contains("\"training\"");
    assert!(said.by_ref().map(Result::unwrap).any(|line| training(&line)), "it never trained");
    let mut kill = std::process::Command::new("kill");
    assert!(kill.args(["-INT", &child.id().to_string()]).status().unwrap().success());
    said.for_each(drop);
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
fn ctrl_c_ends_a_training_and_leaves_nothing() {
    let world = World::new();
    let output = interrupt(&world, &["--epochs", "1000", "--learning-rate", "1e-5", "--json"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0));
    assert_eq!(world.made(), [""; 0]);
}

#[cfg(unix)]
fn with_a_checkpoint_a_training_goes_on_where_ctrl_c_ended_it() {
    let world = World::new();
    let checkpoint = world.path("checkpoint");
    let file = checkpoint.to_str().unwrap();
    let words = |epochs| {
        let recipe = ["--epochs", epochs, "--learning-rate", "1e-5", "--step-tokens", "64"];
        [&recipe[..], &["--json", "--checkpoint", file]].concat()
    };
    let output = interrupt(&world, &words("12"));
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(world.made(), ["checkpoint"]);
    refuses(&mut world.distill(&words("11")), BAD_INPUT, &["its recipe differ", "delete this one"]);
    let mut made = world.distill(&words("12"));
    let told: Value = serde_json::from_slice(&made.output().unwrap().stdout).unwrap();
    let [resumed, steps] = ["resumed_steps", "steps"].map(|key| told[key].as_u64().unwrap());
    assert!(resumed > 0 && resumed < steps, "{told}");
    assert_eq!(world.made(), ["adapter"]);
}

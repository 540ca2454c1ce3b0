//! A teacher that llama.cpp serves: what comes over its API against our own labels of the same weights,
//! and `uspx distill --teacher-url` by it.

use crate::llama_cpp::{expand, need, python};
use crate::students::{student, write};
use crate::support::{NOT_FOUND, USAGE, json, model, prompts, refuses, root, uspx};
use assert_cmd::Command as Uspx;
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use tempfile::tempdir;
use uspx_distill::{Asking, Keeping, Labels, Piece, PromptLabels, Sampling, Target, label};
use uspx_domain::{ExportFormat, Prompt};
use uspx_endpoint::{Endpoint, Patience, Settings};
use uspx_export::GGUF_FILE;
use uspx_model::NoProgress;
use uspx_model::chat::Bounds;
use uspx_tests::trials;

const PROMPTS: usize = 12;
const TOP_K: u32 = 8;

pub fn trials() -> Vec<Trial> {
    let without = trials![what_cannot_be_asked_is_refused_before_any_work];
    without
        .into_iter()
        .chain(need().of_all(trials![a_served_teacher_says_what_it_says_here]))
        .collect()
}

/// llama.cpp's server on a file.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(file: &std::path::Path) -> Self {
        let script = root().join("tests/parity/gguf_serve.py");
        let mut process = Command::new(python())
            .arg(script)
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The engine may say something of its own first.
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut addresses = lines.filter(|line| line.starts_with("http"));
        let url = format!("{}/v1", addresses.next().expect("the server tells its address"));
        Self { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn asked() -> Vec<Prompt> {
    let text = std::fs::read_to_string(prompts("cli-heldout.jsonl")).unwrap();
    let mut all = uspx_domain::parse_prompts(&text, false).unwrap().prompts;
    all.truncate(PROMPTS);
    all
}

/// What the server says.
fn served(url: &str, prompts: &[Prompt]) -> Labels {
    let settings = Settings {
        url: url.into(),
        model: "student".into(),
        key: None,
        at_once: 2,
        top_k: TOP_K,
        patience: Patience::default(),
    };
    let bounds = Bounds { answer: 48, reasoning: 0 };
    let how = Asking { target: Target::Teacher, sampling: Sampling::NONE, bounds, room: 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = Endpoint::new(settings).unwrap();
    let said = runtime.block_on(endpoint.answers(prompts, &how, &NoProgress)).unwrap();
    assert!(said.skipped.is_empty(), "{:?}", said.skipped);
    said.labels(said.answers.iter().flat_map(|a| a.targets.clone()).collect())
}

/// Candidates at a place that are text or the end, by what they stand for.
fn candidates(labels: &Labels, prompt: usize, token: usize) -> Vec<(Piece, f32)> {
    let top = &labels.prompts[prompt].tokens[token].top;
    top.iter().map(|(at, l)| (labels.piece(*at).unwrap().clone(), *l)).collect()
}

fn a_served_teacher_says_what_it_says_here() {
    let (folder, student) = (tempdir().unwrap(), student());
    write(&student, ExportFormat::GGUF, folder.path());
    let floats = folder.path().join("f32.gguf");
    expand(&folder.path().join(GGUF_FILE), &floats);
    let server = Server::start(&floats);
    let theirs = served(&server.url, &asked());

    // Our own engine labels the same answers by the same weights.
    let own = uspx_export::open_gguf(
        &folder.path().join(GGUF_FILE),
        uspx_model::Placement::floats(candle_core::DType::F32, &candle_core::Device::Cpu),
    );
    let own = own.unwrap();
    let answers: Vec<PromptLabels> = theirs.prompts.clone();
    let (ours, skipped) =
        label(&own, answers, None, (Keeping::Likeliest(TOP_K), usize::MAX), &NoProgress).unwrap();
    assert!(skipped.is_empty() && theirs.prompts.len() == PROMPTS);
    let (mut tokens, mut worst) = (0, 0f32);
    for (at, (their, our)) in theirs.prompts.iter().zip(&ours.prompts).enumerate() {
        assert_eq!((&their.answer, their.ended), (&our.answer, our.ended));
        assert!(!their.tokens.is_empty(), "no probabilities for `{}`", their.answer);
        for (n, (t, o)) in their.tokens.iter().zip(&our.tokens).enumerate() {
            assert_eq!((t.start, t.end), (o.start, o.end), "{}", their.answer);
            worst = worst.max((t.log_prob - o.log_prob).abs());
            // Of half characters the server says nothing.
            let own = candidates(&ours, at, n);
            for (piece, log_prob) in candidates(&theirs, at, n).into_iter().take(3) {
                let same = own.iter().find(|(other, _)| *other == piece);
                let (_, other) = same.unwrap_or_else(|| panic!("{piece:?} is not among {own:?}"));
                worst = worst.max((log_prob - other).abs());
            }
            tokens += 1;
        }
    }
    println!("{tokens} tokens, log-probabilities at most {worst:.1e} apart");
    assert!(tokens > 4 * PROMPTS && worst < 5e-3, "{tokens} tokens, {worst} apart");

    let out = folder.path().join("adapter");
    let words = ["--teacher-model", "student", "--teacher-url", &server.url, "--samples", "2"];
    let told = json(distilling(&words).arg("--out").arg(&out));
    assert_eq!(told["prompts"].as_u64().unwrap(), 15 + told["samples"].as_u64().unwrap());
    assert!(told["steps"].as_u64() > Some(0) && told["skipped"].as_array().unwrap().is_empty());
    assert!(out.join("adapter_model.safetensors").is_file());
}

/// `uspx distill` on 16 prompts, of which one is kept to stop by.
fn distilling(words: &[&str]) -> Uspx {
    let mut command = uspx();
    command.args(["distill", "--student"]).arg(model("student"));
    command.arg("--prompts").arg(prompts("cli-train.jsonl"));
    command.args(["--threads", "1", "--limit", "16", "--epochs", "1", "--rank", "4"]);
    command.args(["--max-reasoning-tokens", "0", "--max-new-tokens", "48"]).args(words);
    command
}

fn what_cannot_be_asked_is_refused_before_any_work() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("adapter");
    let refused = |words: &[&str], code, said: &[&str]| {
        refuses(distilling(words).arg("--out").arg(&out), code, said);
        assert!(!out.exists());
    };
    let nobody = ["--teacher-model", "m", "--teacher-url"];
    refused(&[], USAGE, &["--teacher"]);
    refused(&["--teacher-url", "http://127.0.0.1:9/v1"], USAGE, &["--teacher-model"]);
    refused(&[&nobody[..], &["127.0.0.1:9/v1"]].concat(), USAGE, &["http://127.0.0.1:8080/v1"]);
    for (flag, value) in
        [("--dreams", "2"), ("--on-policy", "2"), ("--sampled", "8"), ("--mask", "mask.json")]
    {
        let words = [&nobody[..], &["http://127.0.0.1:9/v1", flag, value]].concat();
        refused(&words, USAGE, &[flag]);
    }
    refused(&["--teacher", "nowhere"], NOT_FOUND, &["there is no model at nowhere"]);
    refused(&["--teacher", "nowhere", "--min-consistency", "0.5"], USAGE, &["--samples"]);
}

//! `uspx probe sae`: what it trains is in SAELens' files, is judged the same when it is read again,
//! and goes on where Ctrl-C left it.

use crate::support::{BAD_INPUT, NOT_FOUND, REFUSED, USAGE, json, on, refuses, uspx};
use assert_cmd::Command;
use libtest_mimic::Trial;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::tempdir;
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        an_sae_is_trained_written_read_and_judged_the_same,
        an_interrupted_training_goes_on_to_the_same_file,
        what_cannot_be_done_is_said_and_leaves_nothing,
        features_are_units_from_probe_to_mask,
    ]
}

fn training(out: &Path, words: &[&str]) -> Command {
    let mut command =
        on(&["probe", "sae", "--features", "128", "--buffer-tokens", "600"], "teacher", 30);
    command.args(["--step-tokens", "200", "--layer", "1", "--epochs", "6", "--save-every", "1"]);
    command.arg("--out").arg(out).args(words);
    command
}

fn judging(sae: &Path, which: &str) -> Command {
    let mut command = on(&["probe", "sae"], which, 3);
    command.arg("--eval").arg(sae);
    command
}

fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {report:#}"))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn an_sae_is_trained_written_read_and_judged_the_same() {
    let place = tempdir().unwrap();
    for kind in ["topk", "batchtopk"] {
        let out = place.path().join(kind);
        let report = json(&mut training(&out, &["--kind", kind]));
        assert_eq!(names(&out), ["cfg.json", "sae_weights.safetensors"]);
        let config: Value =
            serde_json::from_str(&fs::read_to_string(out.join("cfg.json")).unwrap()).unwrap();
        let architecture = if kind == "topk" { "topk" } else { "jumprelu" };
        assert_eq!(config["architecture"], architecture);
        assert_eq!(config["metadata"]["hook_name"], "blocks.1.hook_resid_post");
        assert_eq!((&config["d_in"], &config["d_sae"]), (&128.into(), &128.into()));
        assert_eq!(report["kind"], architecture);
        assert_eq!(report["training"]["prompts"], 27);
        assert_eq!(report["evaluation"]["prompts"], 3, "a tenth is held out");
        let of = |key: &str| number(&report, &format!("/evaluation/{key}"));
        assert!(of("clean_loss") < of("sae_loss") && of("sae_loss") < of("zero_loss"));
        let (zero, clean) = (of("zero_loss"), of("clean_loss"));
        let recovered = (zero - of("sae_loss")) / (zero - clean);
        assert!((recovered - of("loss_recovered")).abs() < 1e-9);
        assert!((1.0 - of("kl") / of("zero_kl") - of("kl_recovered")).abs() < 1e-9);
        assert!(of("l0") > 1.0 && of("explained_variance") > 0.1);
        let ranking = report["ranking"].as_array().unwrap();
        let bits: Vec<f64> = ranking.iter().map(|r| number(r, "/bits")).collect();
        assert!(!bits.is_empty() && bits.windows(2).all(|w| w[0] >= w[1]), "{bits:?}");

        let first = json(&mut judging(&out, "teacher"));
        let streamed = json(judging(&out, "teacher").arg("--stream"));
        assert_eq!((&first["training"], &first["layer"]), (&Value::Null, &1.into()));
        assert_eq!(streamed["streamed"], true);
        let apart =
            number(&first, "/evaluation/sae_loss") - number(&streamed, "/evaluation/sae_loss");
        assert!(apart.abs() < 1e-3, "{apart}");
        refuses(&mut judging(&out, "student"), REFUSED, &["trained on model", "name that model"]);
    }
}

fn an_interrupted_training_goes_on_to_the_same_file() {
    let place = tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| place.path().join(name));
    json(&mut training(&whole, &[]));
    // The same training, ended by an impatient keeper once a checkpoint is there.
    let mut command = training(&parts, &["--batch-tokens", "64"]);
    command.arg("--json").timeout(std::time::Duration::from_secs(600));
    let mut child = std::process::Command::new(command.get_program())
        .args(command.get_args())
        .env("RAYON_NUM_THREADS", "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = parts.join("checkpoint.safetensors");
    while !checkpoint.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(checkpoint.exists() && !parts.join("cfg.json").exists(), "it ended too soon");

    let words = ["a training that was interrupted", "--resume"];
    refuses(&mut training(&parts, &[]), BAD_INPUT, &words);
    let other = ["--resume", "--k", "5"];
    refuses(&mut training(&parts, &other), REFUSED, &["another training", "settings differ"]);
    let report = json(&mut training(&parts, &["--resume", "--batch-tokens", "64"]));
    assert!(number(&report, "/training/resumed_steps") >= 1.0);
    let again = place.path().join("again");
    json(&mut training(&again, &["--batch-tokens", "64"]));
    let weights = |folder: &Path| fs::read(folder.join("sae_weights.safetensors")).unwrap();
    assert_eq!(weights(&parts), weights(&again), "bit for bit");
    assert_eq!(names(&parts), names(&whole));
}

fn what_cannot_be_done_is_said_and_leaves_nothing() {
    let place = tempdir().unwrap();
    let out = place.path().join("sae");
    for (words, code, said) in [
        (&["--k", "129"][..], USAGE, &["k must be at least 1"][..]),
        (&["--layer", "4"], USAGE, &["no layer 4", "0 to 3"]),
        (&["--resume"], NOT_FOUND, &["no checkpoint", "leave out --resume"]),
        (&["--heldout", "nowhere.jsonl"], NOT_FOUND, &["nowhere.jsonl does not exist"]),
    ] {
        let mut command = on(&["probe", "sae", "--features", "128"], "teacher", 4);
        refuses(command.arg("--out").arg(&out).args(words), code, said);
        assert_eq!(names(place.path()), [""; 0]);
    }
    refuses(&mut on(&["probe", "sae"], "teacher", 4), USAGE, &["--out"]);
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "x").unwrap();
    refuses(&mut training(&out, &[]), BAD_INPUT, &["is there already", "--out"]);
    refuses(&mut judging(&out, "teacher"), NOT_FOUND, &["cfg.json does not exist"]);
    fs::write(out.join("cfg.json"), "{\"d_in\": 128, \"d_sae\": 4, \"architecture\": \"gated\"}")
        .unwrap();
    refuses(&mut judging(&out, "teacher"), BAD_INPUT, &["gated", "topk"]);
}

/// The SAE's features measured, the best kept by a mask, and the mask's loss that of an effect.
fn features_are_units_from_probe_to_mask() {
    let place = tempdir().unwrap();
    let [sae, other] = ["sae", "other"].map(|name| place.path().join(name));
    let report = json(&mut training(&sae, &["--confirm", "5"]));
    json(&mut training(&other, &["--seed", "3"]));
    let confirmed = report["confirmed"].as_array().unwrap();
    assert_eq!(confirmed.len(), 5);
    for (confirmed, ranked) in confirmed.iter().zip(report["ranking"].as_array().unwrap()) {
        assert_eq!(confirmed["feature"], ranked["feature"]);
        let [effect, stderr] = ["/effect", "/stderr"].map(|path| number(confirmed, path));
        assert_eq!(confirmed["kept"], effect.abs() > 1.96 * stderr);
    }
    let run = |words: &[&str], sae: Option<&Path>| {
        let mut command = on(words, "teacher", 6);
        if let Some(sae) = sae {
            command.arg("--sae").arg(sae);
        }
        command
    };
    let patch = ["probe", "patch", "--units", "feature"];
    let exact = json(&mut run(&patch, Some(&sae)));
    let effects = exact["effects"]["feature"].as_array().unwrap();
    let widths: Vec<usize> = effects.iter().map(|row| row.as_array().unwrap().len()).collect();
    assert_eq!(widths, [0, 128, 0, 0]);
    let effect = |at: usize| number(&effects[1][at], "");
    let largest = (0..128).max_by(|a, b| effect(*a).abs().total_cmp(&effect(*b).abs())).unwrap();
    for method in ["atp", "eap-ig"] {
        let found = json(run(&patch, Some(&sae)).args(["--method", method]));
        assert!(number(&found, &format!("/magnitudes/feature/1/{largest}")) > 0.0);
    }

    let mask = place.path().join("mask.json");
    let mut build = run(&["mask", "build", "--units", "feature", "--keep", "0.5"], Some(&sae));
    let built = json(build.args(["--search", "0", "--out"]).arg(&mask));
    assert_eq!(built["keep"]["feature"][1].as_array().unwrap().len(), 64);
    // The same file with only that feature gone.
    let mut edited: Value = serde_json::from_str(&fs::read_to_string(&mask).unwrap()).unwrap();
    edited["keep"]["feature"][1] = (0..128).filter(|f| *f != largest).collect();
    fs::write(&mask, edited.to_string()).unwrap();
    let masked = |command: &str, sae: Option<&Path>| {
        let words: Vec<&str> = command.split(' ').collect();
        let mut command = run(&words, sae);
        command.arg("--mask").arg(&mask);
        command
    };
    for command in ["eval", "probe ablate"] {
        let loss = number(&json(&mut masked(command, Some(&sae))), "/loss");
        let rise = loss - number(&exact, "/clean_loss");
        assert!((rise - effect(largest)).abs() < 2e-5 * loss, "{rise} {}", effect(largest));
        refuses(&mut masked(command, None), BAD_INPUT, &["layer 1", "--sae DIR"]);
        refuses(&mut masked(command, Some(&other)), REFUSED, &["another sparse autoencoder"]);
    }
    refuses(&mut run(&patch, None), BAD_INPUT, &["no features", "--sae DIR"]);
    let shown = uspx().args(["mask", "show"]).arg(&mask).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("keeps 127 features"));
}

//! Sparse autoencoders that a colony trains: a worker that is killed in the middle of one goes on
//! where it was, and what comes out is, bit for bit, what `uspx probe sae` makes on one machine.

use crate::ground::{CAMPAIGN_WITHIN, Ground, Needs, assert_measured, models};
use crate::ledger::{assert_exactly_once, records};
use crate::process::{run, wait_for};
use libtest_mimic::Trial;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;
use uspx_tests::trials;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    needs.nats.of_all(trials![a_killed_worker_goes_on_and_the_features_are_those_of_one_machine])
}

const EPOCHS: &str = "60";

/// A campaign that ends with its mask, and trains an autoencoder of one layer, slowly.
fn configure(ground: &Ground) {
    ground.stop_at_mask();
    let sae = format!(
        "[campaign.sae]\nlayers = [1]\n[campaign.sae.recipe]\nfeatures = 256\nbatch = 64\nbuffer = 500\n\
         epochs = {EPOCHS}\n[campaign]\n"
    );
    ground.configure("[campaign]\n", &sae);
}

/// The same training by the command line.
fn by_command(ground: &Ground, out: &Path) -> Value {
    let [train, judged] = ["train.jsonl", "validation.jsonl"].map(|name| ground.path(name));
    let shown = |path: &Path| path.display().to_string();
    let (train, judged, out) = (shown(&train), shown(&judged), shown(out));
    let teacher = shown(&models()[0]);
    let args = [
        "probe",
        "sae",
        "--model",
        &teacher,
        "--prompts",
        &train,
        "--heldout",
        &judged,
        "--layer",
        "1",
        "--features",
        "256",
        "--step-tokens",
        "64",
        "--buffer-tokens",
        "500",
        "--epochs",
        EPOCHS,
        "--threads",
        "1",
        "--out",
        &out,
        "--json",
    ];
    let said = run(&args, &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.out).unwrap()
}

fn a_killed_worker_goes_on_and_the_features_are_those_of_one_machine() {
    let ground = Ground::new();
    configure(&ground);
    let mut coordinator = ground.coordinator("only");
    let mut worker = ground.worker("one");
    let checkpoints = ground.path("worker-one/checkpoints");
    // A whole one: what is half written, when the worker is killed, is none.
    let is_whole = |entry: &fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
    wait_for("a state of the training", CAMPAIGN_WITHIN, || {
        fs::read_dir(&checkpoints).ok()?.flatten().find(is_whole)
    });
    worker.kill();
    let mut worker = ground.worker("one");
    let ended = coordinator.end(CAMPAIGN_WITHIN);
    assert_measured(&ended);
    worker.interrupt();
    let said = worker.end(Duration::from_secs(20));
    assert!(said.err.contains("a training goes on at step"), "it began anew: {said:?}");
    assert_eq!(fs::read_dir(&checkpoints).unwrap().count(), 0, "a state is left over");
    assert_exactly_once(&records(&ground.ledger()));

    let (ours, alone) = (ground.path("state/saes/layer-1"), ground.path("alone"));
    let report = by_command(&ground, &alone);
    let weights = |folder: &Path| fs::read(folder.join("sae_weights.safetensors")).unwrap();
    assert!(weights(&ours) == weights(&alone), "other weights than on one machine");
    let told = fs::read(ground.path("state/report.json")).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let recovered = number(&told["figures"]["saes"][0]["recovered"]);
    let wanted = number(&report["evaluation"]["loss_recovered"]);
    assert!((recovered - wanted).abs() < 1e-5, "{recovered} {wanted}");
    let page = fs::read_to_string(ground.path("state/report.md")).unwrap();
    assert!(page.contains("Sparse autoencoders"), "{page}");
}

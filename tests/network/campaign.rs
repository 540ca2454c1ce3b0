//! The whole loop over a real network: from prompts to a student that another machine pulled.

use crate::ground::{CAMPAIGN_WITHIN, Ground, Needs, WORKERS, assert_published};
use crate::ledger::{assert_exactly_once, assert_replays_elsewhere, records};
use crate::process::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::Path;
use uspx_tests::moto::Moto;
use uspx_tests::trials;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    let mut trials = trials![
        a_colony_over_nats_publishes_a_student_that_pulls,
        workers_that_stream_their_models_publish_too,
    ];
    trials.extend(needs.s3.of_all(trials![the_same_over_an_s3_api]));
    needs.nats.of_all(trials)
}

/// One undisturbed campaign, watched over the network while it runs, and its student pulled.
fn publishes_a_student_that_pulls(ground: &Ground) {
    let mut coordinator = ground.coordinator("only");
    let _workers = ground.workers();
    let seen = wait_for("both workers and a stage in `uspx status`", CAMPAIGN_WITHIN, || {
        let status = ground.status();
        let both = status["workers"].as_array().is_some_and(|w| w.len() == WORKERS.len());
        (both && status["stage"] == "explore").then_some(status)
    });
    assert!(
        seen["epoch"].as_u64().is_some_and(|n| n > 0)
            && seen["tasks_answered"].as_u64().is_some_and(|n| n > 0)
    );
    assert_eq!(
        seen["workers"].as_array().unwrap().iter().map(|w| &w["worker"]).collect::<Vec<_>>(),
        WORKERS
    );

    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    assert_eq!(ground.status()["release"], 1);
    assert_exactly_once(&records(&ground.ledger()));
    assert_replays_elsewhere(&ground.ledger(), &ground.path("state/mask.json"));
    let (report, laptop) = ground.pull();
    assert_eq!(
        (&report["outcome"], &report["release"]),
        (&Value::from("fetched"), &Value::from(1))
    );
    assert_is_a_release(&laptop);
    let (again, _) = ground.pull();
    assert_eq!(
        (&again["outcome"], &again["fetched_bytes"]),
        (&Value::from("up to date"), &Value::from(0))
    );
}

/// Every file verified against the manifest, and all parts of a release there.
fn assert_is_a_release(laptop: &Path) {
    let verified = uspx_artifact::verify(laptop).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(verified.release, 1);
    let current = uspx_artifact::current(laptop).unwrap().expect("a current release");
    for part in [
        "gptq/model.safetensors",
        "gptq/config.json",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "mask.json",
        "report.json",
    ] {
        assert!(current.folder.join(part).is_file(), "{part} is missing");
    }
    let adapter = std::fs::read(current.folder.join("adapter/adapter_config.json")).unwrap();
    let adapter: Value = serde_json::from_slice(&adapter).unwrap();
    assert_eq!(
        (&adapter["peft_type"], &adapter["r"].is_u64()),
        (&Value::from("LORA"), &true),
        "{adapter}"
    );
    names_its_models(&current.folder);
    let student = uspx_worker::open_any(
        &current.folder.join("gptq"),
        uspx_model::Placement::floats(candle_core::DType::F32, &candle_core::Device::Cpu),
    );
    student.unwrap_or_else(|e| panic!("the pulled student does not open: {e}"));
}

/// Teacher and base by name and hash; the student by the name that its GGUF file has too.
fn names_its_models(release: &Path) {
    let report = std::fs::read(release.join("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let card = std::fs::read_to_string(release.join("README.md")).unwrap();
    for which in ["teacher", "base"] {
        let (name, hash) = (&report[format!("{which}_name")], &report[which]);
        let line = format!("- {which}: {} (`{}`)", name.as_str().unwrap(), hash.as_str().unwrap());
        assert!(card.contains(&line), "no `{line}` in: {card}");
    }
    assert!(card.contains("uspx pull "), "{card}");
    let files: Vec<_> = std::fs::read_dir(release.join("gguf")).unwrap().collect();
    assert_eq!(files.len(), 1);
    let file = uspx_export::gguf::file::GgufFile::open(&files[0].as_ref().unwrap().path()).unwrap();
    let name = file.metadata().get("general.name").unwrap().to_string().unwrap();
    let base = report["base_name"].as_str().unwrap();
    assert!(name.starts_with(&format!("{base}-uspx-")), "{name}");
    // The release has the same name.
    assert_eq!(report["student_name"], name.as_str());
    assert!(card.contains(&format!("- called in its files: {name}\n")), "{card}");
}

fn a_colony_over_nats_publishes_a_student_that_pulls() {
    let ground = Ground::new();
    ground.configure("passes = 0", "passes = 1");
    publishes_a_student_that_pulls(&ground);
}

/// Every kind of work of a campaign, on workers that leave the weights in their files.
fn workers_that_stream_their_models_publish_too() {
    let ground = Ground::new();
    let mut coordinator = ground.coordinator("only");
    let _workers = WORKERS.map(|name| {
        ground.worker_at(name, |command| {
            command.arg("--store").arg(&ground.store).args(["--stream", "--memory", "512MiB"]);
        })
    });
    assert_published(&coordinator.end(CAMPAIGN_WITHIN));
    assert_exactly_once(&records(&ground.ledger()));
    for name in WORKERS {
        let said = std::fs::read_to_string(ground.path(&format!("worker-{name}.err"))).unwrap();
        assert!(said.contains("streamed from the file"), "{said}");
        assert!(said.contains("tokens a batch, of 0.50 GiB"), "{said}");
    }
}

fn the_same_over_an_s3_api() {
    let moto = Moto::start();
    publishes_a_student_that_pulls(&Ground::over(Some("s3://colony/students/mine"), moto.env()));
}

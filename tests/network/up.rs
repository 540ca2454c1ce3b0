//! `uspx up`, a person's own loop on one machine: a mask alone, then a student that is refused, then
//! another recipe, then another share, all on one ledger; and one file of prompts, split by itself.

use crate::ground::{CAMPAIGN, assets, models, write_prompts};
use crate::ledger::{assert_exactly_once, records};
use crate::process::{Ended, run};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uspx_colony::{Record, Stage};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![
        one_ledger_from_a_mask_to_a_refusal_to_a_release_to_another_share,
        one_file_is_split_and_the_plan_is_told_without_anything_begun,
    ]
}

/// A person's folder.
struct Home {
    folder: TempDir,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_prompts(folder.path());
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, campaign: &str) {
        let here = |name: &str| self.path(name).display().to_string();
        let config = format!(
            "teacher = '{}'\nout = '{}'\ntrain = '{}'\nvalidation = '{}'\ngate = '{}'\n[campaign]\n{campaign}",
            models()[0].display(),
            here("out"),
            here("train.jsonl"),
            here("validation.jsonl"),
            here("gate.jsonl"),
        );
        std::fs::write(self.path("uspx.toml"), config).unwrap();
    }

    fn up(&self, more: &[&str]) -> (Ended, Value) {
        let config = self.path("uspx.toml").display().to_string();
        let fixed = ["up", "-c", &config, "--workers", "2", "--threads", "1", "--json"];
        let said = run(&[&fixed, more].concat(), &[]);
        let page = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"));
        (said, page)
    }

    /// Epochs of a stage so far.
    fn epochs(&self, stage: Stage) -> usize {
        let of = |r: &&Record| matches!(r, Record::EpochOpened { stage: s, .. } if *s == stage);
        records(&self.path("out/colony/ledger")).iter().filter(of).count()
    }
}

fn one_ledger_from_a_mask_to_a_refusal_to_a_release_to_another_share() {
    let home = Home::new();
    let student = models()[1].display().to_string();
    let idle = CAMPAIGN.replace("learning_rate = 0.005", "learning_rate = 0.000000001");

    home.configure(&idle);
    let (said, page) = home.up(&[]);
    assert_eq!((said.code, &page["ending"]), (Some(0), &Value::from("measured")), "{said:?}");
    assert!(page["mask"]["heldout_loss_rise"].is_number() && page["release"].is_null());
    assert_eq!(home.epochs(Stage::Label), 0);

    // A student that learns nothing: 4 bits make it worse than its base.
    let (said, page) = home.up(&["--student", &student]);
    assert_eq!((said.code, &page["ending"]), (Some(6), &Value::from("refused")), "{said:?}");
    assert!(page["student"]["gptq_bits_per_byte"].is_number(), "its figures are shown");
    let (said, _) = home.up(&["--student", &student]);
    assert_eq!(said.code, Some(6), "unchanged, the refusal stands");
    assert_eq!(home.epochs(Stage::Distil), 1);

    // Another recipe: what is measured and labelled stays.
    home.configure(CAMPAIGN);
    let (said, page) = home.up(&["--student", &student]);
    assert_eq!((said.code, &page["ending"]), (Some(0), &Value::from("published")), "{said:?}");
    assert!(said.err.contains("distil.recipes"), "what changed is said: {said:?}");
    assert_eq!((home.epochs(Stage::Label), home.epochs(Stage::Distil)), (1, 2));
    let release = PathBuf::from(page["release"].as_str().unwrap());
    assert!(release.join("gguf/student.gguf").is_file());

    let explored = home.epochs(Stage::Explore);
    let (said, page) = home.up(&["--student", &student, "--keep", "0.75"]);
    let ended = (said.code, page["ending"].clone());
    assert_eq!(page["mask"]["kept_fraction"], 0.75);
    assert_eq!((home.epochs(Stage::Trace), home.epochs(Stage::Explore)), (1, explored));

    // Beside a campaign that is over: nothing of it is made again.
    let judged = home.epochs(Stage::JudgeStudents);
    let more = ["--student", &student, "--keep", "0.75", "--sae-layers", "2"];
    let (said, page) = home.up(&more);
    assert_eq!((said.code, page["ending"].clone()), ended, "{said:?}");
    assert_eq!((home.epochs(Stage::Sae), home.epochs(Stage::JudgeStudents)), (1, judged));
    assert!(page["figures"]["saes"][0]["recovered"].is_number(), "{page}");
    let folder = home.path("out/colony/saes/layer-2");
    assert!(folder.join("cfg.json").is_file() && folder.join("features.json").is_file());
    assert_exactly_once(&records(&home.path("out/colony/ledger")));
}

fn one_file_is_split_and_the_plan_is_told_without_anything_begun() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("mine.jsonl"), folder.path().join("out"));
    let all = std::fs::read_to_string(assets().join("prompts/cli-train.jsonl")).unwrap();
    std::fs::write(&file, all.lines().take(120).collect::<Vec<_>>().join("\n")).unwrap();
    let [teacher, student] = models().map(|path| path.display().to_string());
    let shown = |path: &Path| path.display().to_string();
    let said = run(
        &[
            "up",
            "--teacher",
            &teacher,
            "--student",
            &student,
            "--prompts",
            &shown(&file),
            "--out",
            &shown(&out),
            "--workers",
            "1",
            "--threads",
            "1",
            "--plan",
            "--json",
        ],
        &[],
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    let plan: Value = serde_json::from_str(&said.out).unwrap();
    let count = |split: &str| plan[split].as_u64().unwrap();
    assert_eq!(count("train") + count("validation") + count("gate"), 120);
    assert!((15..=18).contains(&count("gate")) && (4..=6).contains(&count("validation")));
    assert_eq!(plan["stages"].as_array().unwrap().len(), 8);
    assert!(plan["seconds"].as_f64().unwrap() > 1.0, "{plan}");
    assert!(!out.join("colony").exists(), "nothing was begun");
}

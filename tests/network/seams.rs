//! A template under which letters join over the seam: the campaign goes on with the tokens in use,
//! and status says so.

use crate::ground::models;
use crate::process::{on_one_line, run};
use crate::replay::{Here, prompts};
use libtest_mimic::Trial;
use serde_json::Value;
use std::time::Duration;
use uspx_domain::{Prompt, SeamPrompts};
use uspx_tests::trials;

pub fn trials() -> Vec<Trial> {
    trials![seams_of_a_campaign_are_counted_in_its_status]
}

/// Bare texts one after another: "l" and "s" are one token of the whole.
const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}{% endfor %}{% if not add_generation_prompt %}<|return|>{% endif %}";

fn joining(prompt: &Prompt) -> Prompt {
    Prompt { prompt: "cd; l".to_owned(), reference: Some("s".to_owned()), ..prompt.clone() }
}

#[tokio::main]
async fn seams_of_a_campaign_are_counted_in_its_status() {
    let [shipped, student] = models();
    let teacher = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(shipped).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), teacher.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(teacher.path().join("chat_template.jinja"), TEMPLATE).unwrap();

    let train: Vec<Prompt> = prompts(0..3).iter().map(joining).collect();
    let mut here = Here::over(train, Duration::from_secs(30));
    let worker = here.worker_with("one", vec![teacher.path().to_owned(), student]);
    here.run_until(|p| p.epoch >= 2).await;
    here.assert_ledger_is_the_truth();
    assert_eq!(here.coordinator.state().seam_prompts(), SeamPrompts { teacher: 3, student: 0 });

    let state = here.folder.path().display().to_string();
    let json: Value =
        serde_json::from_str(&run(&["status", "--state", &state, "--json"], &[]).out).unwrap();
    assert_eq!(json["seam_prompts"], serde_json::json!({"teacher": 3, "student": 0}));
    let person = on_one_line(&run(&["status", "--state", &state], &[]).out);
    assert!(
        person.contains("seams") && person.contains("for the teacher, 3 prompts have other tokens"),
        "{person}"
    );
    worker.await.unwrap();
}

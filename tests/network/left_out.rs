//! Prompts that are too long for the teacher: left out alone, and named in log, status and ending.

use crate::ground::{CAMPAIGN_WITHIN, Ground, Needs};
use crate::ledger::records;
use crate::process::{on_one_line, run};
use crate::replay::{Here, prompts};
use libtest_mimic::Trial;
use serde_json::Value;
use std::time::Duration;
use uspx_colony::Record;
use uspx_colony::reasons::left_out;
use uspx_domain::{Outcome, Prompt, Statistic};
use uspx_tests::trials;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    let mut trials = trials![invariant_10_one_long_prompt_costs_its_batch_nothing_else];
    trials.extend(
        needs
            .nats
            .of_all(trials![invariant_10_where_none_can_be_traced_log_status_and_ending_say_why]),
    );
    trials
}

/// More words than the shipped teacher's context of 131072 has tokens.
const WORDS: usize = 132_000;

fn lengthened(mut prompt: Prompt) -> Prompt {
    prompt.prompt = "x ".repeat(WORDS);
    prompt
}

#[tokio::main]
async fn invariant_10_one_long_prompt_costs_its_batch_nothing_else() {
    let mut train = prompts(0..48);
    let long = train[3].id.clone();
    train[3] = lengthened(train[3].clone());
    let mut here = Here::over(train, Duration::from_secs(30));
    let worker = here.worker("one");
    here.run_until(|p| p.mask.is_some()).await;
    here.assert_ledger_is_the_truth();
    let state = here.coordinator.state();
    assert_eq!(left_out(state)[0].ids, vec![long.clone()]);
    assert!(state.tickets().values().all(|t| t.given_up.is_none()));
    let status: Value =
        serde_json::from_slice(&std::fs::read(here.folder.path().join("status.json")).unwrap())
            .unwrap();
    assert_eq!(status["skipped"][0]["ids"], serde_json::json!([long]));
    worker.await.unwrap();
    let Here { folder, coordinator, .. } = here;
    drop(coordinator);
    let traced: usize = records(&folder.path().join("ledger")).iter().map(newly_traced).sum();
    assert_eq!(traced, 47, "every other prompt was traced");
}

/// Prompts that a trace's answer is about.
fn newly_traced(record: &Record) -> usize {
    let Record::Accepted { answer } = record else { return 0 };
    match &answer.outcome {
        Outcome::Scores(d) if d.columns.iter().any(|c| c.statistic == Statistic::COUNT) => {
            d.prompts.len()
        }
        _ => 0,
    }
}

fn invariant_10_where_none_can_be_traced_log_status_and_ending_say_why() {
    let ground = Ground::new();
    let train: Vec<Prompt> = prompts(0..3).into_iter().map(lengthened).collect();
    let lines: Vec<String> = train.iter().map(|p| serde_json::to_string(p).unwrap()).collect();
    std::fs::write(ground.path("train.jsonl"), lines.join("\n")).unwrap();
    let mut coordinator = ground.coordinator("only");
    let _worker = ground.worker("one");
    let ended = coordinator.end(CAMPAIGN_WITHIN);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let ids: Vec<&str> = train.iter().map(|p| p.id.as_str()).collect();
    let named = format!("3 prompts are left out ({})", ids.join(", "));
    let closing = format!("no train prompt could be traced: by the teacher, {named}");
    assert!(
        ended.err.contains(&closing) && ended.err.contains("context is 131072"),
        "{}",
        ended.err
    );
    let logged = ended.err.lines().any(|l| l.contains("WARN") && l.contains(&named));
    assert!(logged && !ended.err.contains("x x x"), "{}", ended.err);

    let state = ground.path("state").display().to_string();
    let json: Value =
        serde_json::from_str(&run(&["status", "--state", &state, "--json"], &[]).out).unwrap();
    let skipped = &json["skipped"][0];
    assert_eq!((&skipped["model"], &skipped["reason"]), (&"teacher".into(), &"too_long".into()));
    assert_eq!((&skipped["prompts"], &skipped["ids"]), (&3.into(), &serde_json::json!(ids)));
    let person = on_one_line(&run(&["status", "--state", &state], &[]).out);
    assert!(person.contains("left out") && person.contains("3 prompts are left out"), "{person}");
}

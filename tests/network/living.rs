//! A colony that stays when its campaign is over, and goes on measuring what is added to its prompts; one that is held.

use crate::ground::{CAMPAIGN_WITHIN, Ground, Needs, assets};
use crate::ledger::{assert_exactly_once, records};
use crate::process::{on_one_line, run, wait_for};
use libtest_mimic::Trial;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use uspx_colony::{Record, Stage, State};
use uspx_coordinator::ledger::survey;
use uspx_tests::trials;

pub fn trials(needs: &Needs) -> Vec<Trial> {
    needs.nats.of_all(trials![
        a_colony_stays_and_measures_what_is_added,
        a_held_colony_waits_with_its_student_through_a_restart,
    ])
}

/// How often the ledger says that the campaign is over, read beside its coordinator.
fn endings(ground: &Ground) -> usize {
    let mut endings = 0;
    let count = |record| endings += usize::from(matches!(record, Record::Ended { .. }));
    survey(&ground.ledger(), count).map(|_| endings).unwrap_or(0)
}

/// The stages that the ledger opened, read beside its coordinator.
fn stages(ground: &Ground) -> Vec<Stage> {
    let mut stages = Vec::new();
    let note = |record| {
        if let Record::EpochOpened { stage, .. } = record {
            stages.push(stage);
        }
    };
    survey(&ground.ledger(), note).map(|_| stages).unwrap_or_default()
}

fn a_colony_stays_and_measures_what_is_added() {
    let ground = Ground::new();
    ground.stop_at_mask();
    ground.configure("colony = 'test'", "colony = 'test'\nstay = true");
    let state = ground.path("state").display().to_string();
    let new = ground.path("new.jsonl");
    let all = fs::read_to_string(assets().join("prompts/math-heldout.jsonl")).unwrap();
    fs::write(&new, all.lines().take(24).collect::<Vec<_>>().join("\n")).unwrap();
    let add = ["errbench", "add", &new.display().to_string(), "--state", &state, "--json"];
    let lost = run(&[&add[..4], &["/nowhere", "--json"]].concat(), &[]);
    assert_eq!(lost.code, Some(4), "{lost:?}");

    let mut coordinator = ground.coordinator("stays");
    let mut workers = ground.workers();
    wait_for("the campaign is over", CAMPAIGN_WITHIN, || (endings(&ground) == 1).then_some(()));
    let said = run(&add, &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let page: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&page["prompts"], &page["taken"]), (&24.into(), &true.into()));
    wait_for("it is over again", CAMPAIGN_WITHIN, || (endings(&ground) == 2).then_some(()));
    assert!(!coordinator.has_ended());

    let why = run(&["mask", "why", "expert:1.3", "--state", &state, "--json"], &[]);
    assert_eq!(why.code, Some(0), "{why:?}");
    let why: Value = serde_json::from_str(&why.out).unwrap();
    assert!(why["effect"]["mean"].is_number() && why["prompts_tried"].as_u64() > Some(0), "{why}");
    let measured: u64 =
        why["measured_by"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(Some(measured), why["prompts_tried"].as_u64(), "{why}");

    // Started again, it has them still, and nothing is left to do.
    coordinator.interrupt();
    coordinator.end(Duration::from_secs(20));
    let mut again = ground.coordinator("again");
    wait_for("it is over still", CAMPAIGN_WITHIN, || {
        again.has_ended().then(|| panic!("it stays")).or(ground.status_file())
    });
    workers.iter_mut().chain([&mut again]).for_each(|process| process.kill());
    let records = records(&ground.ledger());
    assert_exactly_once(&records);
    let mut state = State::default();
    records.iter().for_each(|record| state.fold(record));
    let campaign = state.campaign().unwrap();
    let late: BTreeSet<u32> =
        (0..).zip(&campaign.prompts).filter(|(_, p)| p.generation == 1).map(|(at, _)| at).collect();
    assert_eq!(late.len(), 24);
    let after = records.iter().skip_while(|r| !matches!(r, Record::Amended(_)));
    let traced: Vec<u32> = after
        .filter_map(|record| match record {
            Record::EpochOpened { stage: Stage::Trace, tasks, .. } => Some(tasks),
            _ => None,
        })
        .flatten()
        .flat_map(|task| task.work.prompts().to_vec())
        .collect();
    assert!(!traced.is_empty() && traced.iter().all(|at| late.contains(at)), "only new prompts");
}

/// Not even a coordinator that does not stay ends without the student that a person holds back.
fn a_held_colony_waits_with_its_student_through_a_restart() {
    let ground = Ground::new();
    let state = ground.path("state").display().to_string();
    let say = |word: &str| {
        let said = run(&["coordinator", word, "--state", &state], &[]);
        assert_eq!(said.code, Some(0), "{said:?}");
    };
    let mut coordinator = ground.coordinator("held");
    say("hold");
    let mut workers = ground.workers();
    let waits = || {
        let students = ground.status_file()?["students"].clone();
        (students["waits"] == true).then_some(students)
    };
    assert_eq!(wait_for("its student waits", CAMPAIGN_WITHIN, waits)["kept_back"], "held");
    coordinator.interrupt();
    coordinator.end(Duration::from_secs(20));

    let mut again = ground.coordinator("held-still");
    wait_for("it waits still", CAMPAIGN_WITHIN, waits);
    let page = on_one_line(&run(&["status", "--state", &state], &[]).out);
    assert!(page.contains("HELD") && page.contains("uspx coordinator resume"), "{page}");
    assert!(!again.has_ended());
    let students = |stage: &Stage| stage.needs_student();
    assert_eq!(stages(&ground).into_iter().find(students), None);
    say("resume");
    wait_for("students are made", CAMPAIGN_WITHIN, || stages(&ground).into_iter().find(students));
    workers.iter_mut().chain([&mut again]).for_each(|process| process.kill());
}

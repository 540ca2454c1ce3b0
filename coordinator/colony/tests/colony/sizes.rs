//! Task sizes follow what workers say of their speed. They decide how work is cut up, never what is
//! measured, and no replay depends on them.

use crate::world::*;
use std::collections::BTreeSet;
use uspx_colony::*;
use uspx_domain::{Ablate, Cut, Estimator, Fingerprint, Speed, Work};

/// The world's campaign with no size set.
fn unset(name: &str) -> CampaignConfig {
    let mut config = campaign(name);
    config.probe.trace_batch = None;
    config.probe.patch_batch = None;
    config.probe.units_per_task = None;
    config.judge.batch = None;
    config.distil.label_batch = None;
    config.distil.judge_batch = None;
    config
}

fn speed(model: Fingerprint, work: &str, prompts_per_second: f64) -> Speed {
    Speed {
        model,
        work: work.into(),
        tokens_per_second: 40.0 * prompts_per_second,
        prompt_tokens: 40.0,
        batch_tokens: 400,
        streamed: true,
    }
}

/// A whole campaign whose two workers have said this before it began.
fn sized(config: CampaignConfig, said: &[Speed]) -> Service {
    let world = World::new(config);
    let mut service = Service::default();
    for name in ["a", "b"] {
        for speed in said {
            let speed = speed.clone();
            service.event(Event::WorkerMeasured { worker: worker(name), speed });
        }
        service.see(name);
    }
    service.found(&world.config);
    service.run(&world);
    service
}

fn slow() -> Vec<Speed> {
    let all = [(Estimator::TRACE.name(), 0.5), (Estimator::ATP.name(), 0.1), ("ablate", 4.0)];
    let teacher = fingerprint("teacher");
    let mut said: Vec<Speed> =
        all.into_iter().map(|(work, rate)| speed(teacher, work, rate)).collect();
    said.push(speed(teacher, "label", 0.25));
    said.push(speed(teacher, "judge", 0.5));
    said.push(speed(fingerprint("student"), "judge", 1000.0));
    said
}

/// The largest task of each batch of work of a stage.
fn largest(service: &Service, wanted: Stage) -> Vec<usize> {
    let of = |record: &Record| match record {
        Record::EpochOpened { stage, tasks, .. } if *stage == wanted => {
            tasks.iter().map(|t| t.work.prompts().len()).max()
        }
        _ => None,
    };
    service.ledger.iter().filter_map(of).collect()
}

/// What the stages measured, however it was cut up: in the order of epochs, without the names of
/// tasks.
fn measured(service: &Service) -> Vec<(Stage, BTreeSet<String>)> {
    let of = |record: &Record| match record {
        Record::EpochOpened { stage, tasks, .. } => {
            Some((*stage, tasks.iter().flat_map(pieces).collect()))
        }
        _ => None,
    };
    service.ledger.iter().filter_map(of).collect()
}

/// A task's pieces: each prompt with each thing that is done to it.
fn pieces(task: &PlannedTask) -> Vec<String> {
    let what: Vec<String> = match &task.work {
        Work::Ablate(Ablate { cuts, .. }) => cuts.iter().map(named).collect(),
        Work::Judge(_) => vec![format!("{:?}", task.purpose)],
        other => vec![other.name().to_owned()],
    };
    let prompts = task.work.prompts().iter();
    prompts.flat_map(|at| what.iter().map(move |what| format!("{at} {what}"))).collect()
}

fn named(cut: &Cut) -> String {
    match cut {
        Cut::Unit(unit) => unit.to_string(),
        Cut::Mask(mask) => format!("{:?}", mask.keep),
    }
}

#[test]
fn sizes_follow_speeds_and_what_is_measured_does_not() {
    let (plain, slow) = (sized(unset("sized"), &[]), sized(unset("sized"), &slow()));
    // Where nothing is known, half for each worker.
    assert_eq!(largest(&plain, Stage::Trace), [150]);
    // Two seconds a prompt.
    assert_eq!(largest(&slow, Stage::Trace), [20]);
    assert_eq!((largest(&plain, Stage::Patch), largest(&slow, Stage::Patch)), (vec![30], vec![10]));
    assert!(slow.ledger.len() > plain.ledger.len());
    let probes = |service: &Service| -> Vec<(Stage, BTreeSet<String>)> {
        measured(service).into_iter().filter(|(s, _)| *s <= Stage::JudgeStudents).collect()
    };
    assert_eq!(probes(&plain), probes(&slow), "the same pieces of work, in the same epochs");
    let mask = |s: &Service| s.colony.state().mask().map(|m| (m.version, m.mask.clone()));
    assert_eq!(mask(&plain), mask(&slow), "task sizes decide nothing");
    let explored = |s: &Service| s.colony.state().explored();
    assert_eq!(explored(&plain), explored(&slow));
}

/// Invariant 1: the record of an epoch holds its tasks.
#[test]
fn invariant_1_a_replay_without_the_speeds_gives_the_same_state() {
    let service = sized(unset("replayed"), &slow());
    let mut replayed = State::default();
    service.ledger.iter().for_each(|record| replayed.fold(record));
    assert_eq!(replayed.digest().unwrap(), service.colony.state().digest().unwrap());
    assert!(replayed.deviations().is_empty());
}

#[test]
fn sizes_that_a_person_set_win() {
    let service = sized(campaign("set"), &slow());
    assert_eq!(largest(&service, Stage::Trace), [100]);
    assert_eq!(largest(&service, Stage::Patch), [60]);
}

/// A ledger of an earlier uspx has numbers where a person may now leave them out: they are sizes
/// that were set, and the campaign keeps its name.
#[test]
fn numbers_of_old_ledgers_are_sizes_that_were_set() {
    let config = campaign("old");
    let bytes = rmp_serde::to_vec_named(&config).unwrap();
    let read: CampaignConfig = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!((read.probe.trace_batch, read.judge.batch), (Some(100), Some(125)));
    assert_eq!(read.digest(), config.digest());
    let read: CampaignConfig =
        rmp_serde::from_slice(&rmp_serde::to_vec_named(&unset("new")).unwrap()).unwrap();
    assert_eq!(read, unset("new"));
}

#[test]
fn a_worker_that_is_gone_or_has_not_the_model_sizes_nothing() {
    let mut service = Service::default();
    for name in ["a", "gone"] {
        service.see(name);
        let speed = speed(fingerprint("teacher"), Estimator::TRACE.name(), 0.5);
        service.event(Event::WorkerMeasured { worker: worker(name), speed });
    }
    for name in ["a", "gone"] {
        service.event(Event::WorkerLost { worker: worker(name) });
    }
    service.see("b");
    service.found(&unset("gone"));
    assert_eq!(largest(&service, Stage::Trace), [150], "what the gone ones said is forgotten");
}

//! Prompts that a model cannot run: left out alone, remembered by model and reason, and no figure
//! shifts by them.

use crate::world::*;
use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use uspx_colony::check::check;
use uspx_colony::*;
use uspx_domain::*;

const LONG: SkipReason = SkipReason::TooLong { tokens: 600_000, context: 131_072 };

/// Train prompts 4 and 7 are too long for the teacher, gate prompt 350 too; the template of the
/// student refuses 360..376.
fn gappy(name: &str) -> World {
    let mut world = World::new(campaign(name));
    let (teacher, student) = (fingerprint("teacher"), fingerprint("student"));
    world.unrunnable.extend([4, 7, 350].map(|at| ((teacher, at), LONG)));
    world.unrunnable.extend((360..376).map(|at| ((student, at), SkipReason::Template)));
    world
}

#[test]
fn invariant_10_a_campaign_goes_on_without_them_and_the_report_names_them() {
    let service = run(&gappy("gappy"));
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let report = report(service.colony.state()).unwrap();
    let (teacher, student) = (&report.skipped[0], &report.skipped[1]);
    assert_eq!((teacher.model.as_str(), teacher.reason.as_str()), ("teacher", "too_long"));
    assert_eq!(teacher.ids, ["p4", "p7", "p350"]);
    assert!(
        teacher.text.contains("3 prompts are left out (p4, p7, p350)")
            && teacher.text.contains("600000 tokens")
    );
    assert_eq!((student.model.as_str(), student.ids.len()), ("student", 16));
    assert_eq!(report.compared_prompts, 80 - 1 - 16);
    assert_eq!(report.caveats(), [teacher.text.clone(), student.text.clone()]);
}

/// The true figure over the prompts that every contender can run, and over no others.
#[test]
fn figures_of_contenders_are_over_the_prompts_that_all_can_run() {
    let world = gappy("figures");
    let service = run(&world);
    let shared: Vec<u32> = (340..420).filter(|at| *at != 350 && !(360..376).contains(at)).collect();
    for who in [Contender::Teacher, Contender::Base, ExportFormat::GPTQ.into()] {
        let nats: f64 = shared.iter().map(|at| f64::from(world.judged(*at, who) as f32)).sum();
        let bytes: f64 = shared.iter().map(|at| f64::from(2 * world.tokens(*at))).sum();
        let found = service.colony.state().bits_per_byte(who).unwrap();
        assert!((found - nats / LN_2 / bytes).abs() < 1e-7, "{who:?}: {found}");
    }
    let gate = service.colony.state().gate().unwrap();
    assert_eq!(gate.prompts, 64, "both students have the prompt that the teacher has not");
    assert!(gate.passes(), "{gate:?}");
}

/// A trial's losses stand at the places of the prompts that they are about.
#[test]
fn losses_keep_their_prompts_places() {
    let (whole, gappy) = (run(&World::new(campaign("places"))), run(&gappy("places")));
    let judged = |s: &Service| s.colony.state().judged(Contender::Base).unwrap().clone();
    let (all, some) = (judged(&whole), judged(&gappy));
    assert!(some.len() == 64 && some.iter().all(|(at, loss)| all[at] == *loss));
    let trials =
        |s: &Service| s.colony.state().results().trials[&TrialRole::Random(2)].pairs.clone();
    let (all, some) = (trials(&whole), trials(&gappy));
    assert!(some.len() == all.len() - 1 && some.iter().all(|(at, pair)| all[at] == *pair));
}

#[test]
fn the_teacher_is_not_asked_again_for_what_it_cannot_run() {
    let service = run(&gappy("again"));
    let mut stages: BTreeMap<Stage, Vec<u32>> = BTreeMap::new();
    for record in &service.ledger {
        if let Record::EpochOpened { stage, tasks, .. } = record {
            stages
                .entry(*stage)
                .or_default()
                .extend(tasks.iter().flat_map(|t| t.work.prompts().to_vec()));
        }
    }
    for (stage, wanted) in
        [(Stage::Trace, true), (Stage::Patch, false), (Stage::Explore, false), (Stage::Label, true)]
    {
        let asked = stages[&stage].iter().any(|at| [4, 7].contains(at));
        assert_eq!(asked, wanted, "{stage:?}");
    }
}

#[test]
fn invariant_1_replay_with_skipped_prompts_is_bit_identical_in_any_order() {
    let service = run(&gappy("replay"));
    let mut state = State::default();
    let mut held: Vec<&Record> = Vec::new();
    for record in &service.ledger {
        match record {
            Record::Accepted { .. } => held.push(record),
            other => {
                held.drain(..).rev().for_each(|r| state.fold(r));
                let stored = rmp_serde::to_vec_named(other).unwrap();
                state.fold(&rmp_serde::from_slice(&stored).unwrap());
            }
        }
    }
    assert_eq!(state.digest().unwrap(), service.colony.state().digest().unwrap());
}

#[test]
fn where_nothing_can_be_run_the_ending_says_why() {
    let mut world = World::new(campaign("nothing"));
    world.unrunnable = (0..300).map(|at| ((fingerprint("teacher"), at), LONG)).collect();
    let Some(Ending::Failed(reason)) = run(&world).ending else { panic!("it went on") };
    assert!(
        reason.starts_with(
            "no train prompt could be traced: by the teacher, 300 prompts are left out"
        ),
        "{reason}"
    );
    assert!(reason.contains("the model's context is 131072"), "{reason}");
}

/// Evidence of an earlier campaign lets one go on whose own prompts cannot be measured: rounds of
/// nothing must end.
#[test]
fn rounds_without_a_prompt_to_measure_end() {
    let (mut service, mut world) = honest(campaign("before"));
    world.config.name = "after".to_owned();
    world.unrunnable = (0..300).map(|at| ((fingerprint("teacher"), at), LONG)).collect();
    service.ending = None;
    service.found(&world.config);
    service.run(&world);
    assert!(service.colony.state().ending().is_some());
}

fn first_trace(world: &World) -> (Ticket, Answer) {
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    let (who, task) = service.queues.remove(0);
    (service.colony.state().tickets()[&task.id].clone(), world.answer(&task, &who))
}

#[test]
fn invariant_5_answered_and_skipped_prompts_together_are_the_task_s() {
    let world = gappy("checked");
    let (ticket, good) = first_trace(&world);
    let verdict = |change: &dyn Fn(&mut Answer)| {
        let mut answer = good.clone();
        change(&mut answer);
        check(&world.config, Some(&ticket), &answer)
    };
    let skip = |id: &str| Skipped { id: id.into(), reason: LONG };
    assert_eq!(good.skipped, [skip("p4"), skip("p7")]);
    assert_eq!(verdict(&|_| {}), Ok(()));
    assert_eq!(verdict(&|a| a.skipped.clear()), Err(Refusal::Prompts), "two are missing");
    assert_eq!(verdict(&|a| a.skipped.reverse()), Err(Refusal::Prompts), "out of order");
    assert_eq!(verdict(&|a| a.skipped.push(skip("p7"))), Err(Refusal::Prompts), "named twice");
    assert_eq!(verdict(&|a| a.skipped.push(skip("p9"))), Err(Refusal::Prompts), "answered too");
    assert_eq!(
        verdict(&|a| a.skipped.push(skip("p299"))),
        Err(Refusal::Prompts),
        "of another task"
    );
    assert_eq!(verdict(&|a| a.skipped.push(skip("a prompt's text"))), Err(Refusal::Prompts));
    let empty = |a: &mut Answer| {
        a.skipped = ticket.task.work.prompts().iter().map(|at| skip(&format!("p{at}"))).collect();
        a.outcome = Outcome::Scores(Deposit::default());
    };
    assert_eq!(verdict(&empty), Ok(()), "an answer without scores");
}

#[test]
fn labels_may_not_cover_more_than_there_is_and_too_little_is_reported() {
    let mut world = World::new(campaign("uncovered"));
    world.labelled = 0;
    let service = run(&world);
    let report = report(service.colony.state()).unwrap();
    assert_eq!(report.labels, Some(Coverage { answer_bytes: 100 * 340, labelled_bytes: 0 }));
    assert!(
        report.caveats()[0].contains("0.0 % of 34000 answer bytes labelled: FEWER THAN 95 %"),
        "{:?}",
        report.caveats()
    );
    world.labelled = 101;
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    let verdict = loop {
        let (who, task) = service.queues.remove(0);
        let label = task.work.name() == "label";
        let verdict = service.answer(world.answer(&task, &who));
        if label {
            break verdict;
        }
    };
    assert_eq!(verdict, Some(Verdict::Refused(Refusal::Value("the number of labelled bytes"))));
}

//! Prompts that a tokenizer reads otherwise as a whole text than in use: each is counted once for
//! each model, and reported.

use crate::world::*;
use uspx_colony::check::check;
use uspx_colony::*;
use uspx_domain::*;

/// The teacher has seams at two train prompts, one that only masks are judged on and a gate prompt;
/// the student at two gate prompts and a train prompt, which it trains on but is not measured on.
fn seamed(name: &str) -> World {
    let mut world = World::new(campaign(name));
    let (teacher, student) = (fingerprint("teacher"), fingerprint("student"));
    world.seams.extend([3, 5, 305, 345].map(|at| (teacher, at)));
    world.seams.extend([3, 346, 347].map(|at| (student, at)));
    world
}

/// Patching, bans, masks and every student's judgement meet the same prompts again.
#[test]
fn each_prompt_counts_once_however_often_it_is_measured() {
    let service = run(&seamed("seams"));
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let answers = service.ledger.iter().filter_map(|r| match r {
        Record::Accepted { answer } => Some(answer.seams),
        _ => None,
    });
    assert!(
        answers.sum::<u32>() > 5,
        "no prompt with a seam was measured again: nothing is tested"
    );
    let found = SeamPrompts { teacher: 3, student: 2 };
    assert_eq!(service.colony.state().seam_prompts(), found);
    let report = report(service.colony.state()).unwrap();
    assert_eq!((report.seam_prompts, report.caveats()), (found, found.lines()));
}

#[test]
fn a_model_that_is_teacher_and_student_is_not_counted_twice() {
    let mut world = seamed("one");
    world.config.student = Some(world.config.teacher);
    let service = run(&world);
    assert_eq!(service.colony.state().seam_prompts(), SeamPrompts { teacher: 3, student: 1 });
}

#[test]
fn a_prompt_that_is_left_out_is_not_counted() {
    let mut world = seamed("left out");
    world.unrunnable.insert((fingerprint("teacher"), 5), SkipReason::Template);
    assert_eq!(run(&world).colony.state().seam_prompts(), SeamPrompts { teacher: 2, student: 2 });
}

#[test]
fn a_new_campaign_counts_anew() {
    let mut service = run(&seamed("first"));
    let world = World::new(campaign("second"));
    service.ending = None;
    service.found(&world.config);
    assert!(service.colony.state().seam_prompts().is_none());
}

#[test]
fn invariant_1_replay_with_seams_is_bit_identical_in_any_order() {
    let service = run(&seamed("replay"));
    let mut state = State::default();
    let mut held: Vec<&Record> = Vec::new();
    for record in &service.ledger {
        match record {
            Record::Accepted { .. } => held.push(record),
            other => {
                // Twice: only the first acceptance of a task counts.
                held.iter().rev().chain(&held).for_each(|r| state.fold(r));
                held.clear();
                let stored = rmp_serde::to_vec_named(other).unwrap();
                state.fold(&rmp_serde::from_slice(&stored).unwrap());
            }
        }
    }
    assert_eq!(state.digest().unwrap(), service.colony.state().digest().unwrap());
    assert_eq!(
        State::restore(&state.snapshot().unwrap()).unwrap().seam_prompts(),
        state.seam_prompts()
    );
}

#[test]
fn invariant_5_no_more_prompts_have_a_seam_than_were_measured() {
    let mut world = seamed("checked");
    world.unrunnable.insert((fingerprint("teacher"), 5), SkipReason::Template);
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    let (who, task) = service.queues.remove(0);
    let ticket = service.colony.state().tickets()[&task.id].clone();
    let good = world.answer(&task, &who);
    let verdict = |seams| check(&world.config, Some(&ticket), &Answer { seams, ..good.clone() });
    assert_eq!((good.seams, verdict(good.seams)), (1, Ok(())));
    assert_eq!(verdict(99), Ok(()));
    assert_eq!(verdict(100), Err(Refusal::Seams(100, 99)), "of a hundred prompts one was left out");
}

//! A campaign goes on under another configuration: what it has measured stays, what rests on
//! changed settings is made anew, and no end is a dead one.

use crate::world::*;
use std::collections::BTreeMap;
use uspx_colony::*;
use uspx_domain::*;

/// What was asked for since the ledger had so many records: prompts by stage.
fn asked(service: &Service, since: usize) -> BTreeMap<Stage, Vec<u32>> {
    let mut asked: BTreeMap<Stage, Vec<u32>> = BTreeMap::new();
    for record in &service.ledger[since..] {
        if let Record::EpochOpened { stage, tasks, .. } = record {
            let prompts = tasks.iter().flat_map(|t| t.work.prompts().to_vec());
            asked.entry(*stage).or_default().extend(prompts);
        }
    }
    asked
}

fn stages(service: &Service, since: usize) -> Vec<Stage> {
    asked(service, since).into_keys().collect()
}

/// Invariant 1 holds for amended ledgers too.
fn replays(service: &Service) {
    let mut replayed = State::default();
    service.ledger.iter().for_each(|r| replayed.fold(r));
    assert_eq!(replayed.digest().unwrap(), service.colony.state().digest().unwrap());
    assert!(replayed.deviations().is_empty());
}

/// Amends a campaign that has ended, and runs it to its next end.
fn goes_on(service: &mut Service, world: &World) -> usize {
    let before = service.ledger.len();
    assert_eq!(service.want(&world.config), Amending::GoesOn);
    service.run(world);
    replays(service);
    before
}

#[test]
fn the_same_configuration_changes_nothing() {
    let (mut service, world) = honest(campaign("same"));
    let before = service.ledger.len();
    assert_eq!(service.want(&world.config), Amending::Same);
    assert_eq!((service.ledger.len(), service.ending), (before, Some(Ending::Published(1))));
}

#[test]
fn more_prompts_and_a_larger_budget_are_measured_in_addition() {
    let (mut service, mut world) = honest(campaign("more"));
    let first = service.colony.state().explored();
    let new = (420..440).map(|at| PromptEntry::of(&prompt(&format!("p{at}")), Split::Train));
    world.config.prompts.extend(new);
    world.config.probe.exact_pairs += 2048;
    let before = goes_on(&mut service, &world);
    let asked = asked(&service, before);
    assert_eq!(asked[&Stage::Trace], (420..440).collect::<Vec<u32>>(), "only new prompts");
    assert!(asked[&Stage::Patch].iter().all(|at| (420..440).contains(at)), "their share");
    let explored = service.colony.state().explored();
    assert!(explored.pairs > first.pairs, "{explored:?} after {first:?}");
    for stage in [Stage::JudgeMasks, Stage::Distil, Stage::Export, Stage::JudgeStudents] {
        assert!(asked.contains_key(&stage), "{stage:?}: what rests on the mask is made anew");
    }
    assert_eq!(service.colony.state().gate().unwrap().rival, Contender::Published);
}

#[test]
fn another_share_cuts_anew_from_the_evidence_there_is() {
    let (mut service, mut world) = honest(campaign("share"));
    let kept = |s: &Service| {
        let mask = &s.colony.state().mask().unwrap().mask;
        64 - mask.cut(&shape(), UnitKind::Expert).len()
    };
    assert_eq!(kept(&service), 32);
    world.config.mask.keep = Share::percent(75);
    let before = service.ledger.len();
    service.want(&world.config);
    assert_eq!(kept(&service), 48, "at once");
    let Some(Record::Amended(amendment)) = service.ledger.get(before) else { panic!() };
    assert!(amendment.decision.is_some(), "what it decided stands in its record");
    service.run(&world);
    replays(&service);
    let stages = stages(&service, before);
    assert!(!stages.contains(&Stage::Trace) && !stages.contains(&Stage::Patch), "{stages:?}");
    assert!(stages.contains(&Stage::JudgeMasks) && stages.contains(&Stage::JudgeStudents));
}

#[test]
fn after_a_refusal_another_recipe_is_trained_and_nothing_is_measured_again() {
    let mut world = World::new(campaign("recipe"));
    world.gain = -0.1;
    let mut service = run(&world);
    assert!(matches!(service.ending, Some(Ending::Refused(_))));
    world.gain = 0.3;
    world.config.distil.recipes[0].epochs += 1;
    let before = goes_on(&mut service, &world);
    assert_eq!(stages(&service, before), [Stage::Distil, Stage::Export, Stage::JudgeStudents]);
    assert_eq!(service.ending, Some(Ending::Published(1)));
}

#[test]
fn more_held_out_prompts_judge_the_same_student_again() {
    let mut world = World::new(campaign("gate"));
    world.gain = -0.1;
    let mut service = run(&world);
    let new = (500..540).map(|at| PromptEntry::of(&prompt(&format!("p{at}")), Split::Gate));
    world.config.prompts.extend(new);
    let before = goes_on(&mut service, &world);
    assert_eq!(stages(&service, before), [Stage::JudgeMasks, Stage::JudgeStudents]);
    assert_eq!(service.colony.state().gate().unwrap().prompts, 120);
}

#[test]
fn how_far_workers_are_trusted_ends_no_end() {
    let (mut service, mut world) = honest(campaign("trust"));
    world.config.trust.ahead += 1;
    assert_eq!(service.want(&world.config), Amending::GoesOn);
    assert_eq!(service.colony.state().ending(), Some(&Ending::Published(1)));
    assert_eq!(service.want(&world.config), Amending::Same);
    replays(&service);
}

#[test]
fn without_a_student_it_ends_with_the_mask_and_goes_on_when_there_is_one() {
    let mut world = World::new(campaign("mask"));
    let student = world.config.student.take();
    let mut service = run(&world);
    assert_eq!(service.ending, Some(Ending::Measured));
    let all = stages(&service, 0);
    assert_eq!(all, [Stage::Trace, Stage::Patch, Stage::Explore, Stage::JudgeMasks]);
    assert!(report(service.colony.state()).unwrap().mask.unwrap().rise.is_some());
    world.config.student = student;
    let before = goes_on(&mut service, &world);
    assert_eq!(stages(&service, before)[0], Stage::Label, "nothing is measured twice");
    assert_eq!(service.ending, Some(Ending::Published(1)));
}

#[test]
fn a_change_while_a_batch_is_open_waits_for_it_and_edited_prompts_do_not_hold_it_up() {
    let mut world = World::new(campaign("edited"));
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    let (worker, first) = service.queues.remove(0);
    service.answer(world.answer(&first, &worker));
    // p250 is edited, p251 taken out: both stand in the last of three trace tasks.
    let edited = Prompt { prompt: "another".into(), ..prompt("p250") };
    let last = world.config.prompts.len();
    world.config.prompts[250] = PromptEntry::of(&edited, Split::Train);
    world.config.prompts.remove(251);
    let before = service.ledger.len();
    assert_eq!(service.want(&world.config), Amending::GoesOn);
    let amended = |s: &Service| s.ledger.iter().any(|r| matches!(r, Record::Amended(_)));
    assert!(!amended(&service), "a batch is open");
    let given_up = service.ledger[before..].iter().filter(|r| matches!(r, Record::GivenUp { .. }));
    assert_eq!(given_up.count(), 1);
    // The world answers by the campaign's places.
    let (worker, second) = service.queues.remove(0);
    service.answer(world.answer(&second, &worker));
    assert!(amended(&service), "its batch is answered or given up");
    world.config = service.colony.state().campaign().unwrap().clone();
    assert_eq!(world.config.prompts.len(), last + 1);
    service.run(&world);
    replays(&service);
    let mut traced = asked(&service, before)[&Stage::Trace].clone();
    traced.sort_unstable();
    let again = (200..300).filter(|at| *at != 250 && *at != 251).chain([last as u32]);
    assert_eq!(
        traced,
        again.collect::<Vec<_>>(),
        "what was lost with the retired two, and no more"
    );
}

#[test]
fn another_name_begins_at_once_and_late_answers_to_the_old_one_harm_nobody() {
    let mut world = World::new(campaign("one"));
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    let old = service.queues.clone();
    world.config.name = "two".into();
    assert_eq!(service.want(&world.config), Amending::Anew);
    for (worker, task) in &old {
        let verdict = service.answer(world.answer(task, worker));
        assert_eq!(verdict, Some(Verdict::Refused(Refusal::UnknownTask)));
    }
    service.queues.retain(|item| !old.contains(item));
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    assert!(service.colony.state().accounts()[&worker("a")].quarantined.is_none());
}

/// Configurations change at random moments of a campaign: it ends all the same, replays, and no
/// train prompt in use is left unmeasured.
#[test]
fn changes_at_any_moment_lose_nothing() {
    for seed in 0..12 {
        let mut dice = Dice::new(seed, "changes", 0);
        let mut world = World::new(service::small("any"));
        let mut service = Service::default();
        service.found(&world.config);
        service.see("a");
        let mut wanted = world.config.clone();
        for change in 0..4u32 {
            for _ in 0..dice.below(30) {
                if service.ending.is_some() || service.queues.is_empty() {
                    break;
                }
                let (worker, task) = service.queues.remove(0);
                service.answer(world.answer(&task, &worker));
                world.config = service.colony.state().campaign().unwrap().clone();
            }
            alter(&mut wanted, &mut dice, change);
            service.want(&wanted);
            world.config = service.colony.state().campaign().unwrap().clone();
        }
        while service.ending.is_none() {
            assert!(!service.queues.is_empty(), "seed {seed} is stuck");
            let (worker, task) = service.queues.remove(0);
            service.answer(world.answer(&task, &worker));
            world.config = service.colony.state().campaign().unwrap().clone();
        }
        replays(&service);
        assert_eq!(service.want(&wanted), Amending::Same, "seed {seed}");
        let traced = asked(&service, 0).remove(&Stage::Trace).unwrap_or_default();
        let missing = world.config.split(Split::Train).into_iter().find(|at| !traced.contains(at));
        assert_eq!(missing, None, "seed {seed}");
    }
}

fn alter(wanted: &mut CampaignConfig, dice: &mut Dice, change: u32) {
    match dice.below(8) {
        0 => wanted.mask.keep = Share::percent(30 + 10 * dice.below(5)),
        1 => wanted.probe.exact_pairs += 256,
        2 => wanted.distil.recipes[0].epochs += 1,
        3 => drop(wanted.prompts.remove(dice.below(30) as usize)),
        4 => wanted.distil.tag_prompts += 1,
        5 => wanted.sae.layers = vec![dice.below(4)],
        6 => wanted.together.machines = 1 + dice.below(3),
        _ => {
            let new = prompt(&format!("new{change}"));
            wanted.prompts.push(PromptEntry::of(&new, Split::Train));
        }
    }
}

//! What keeps students back: a person's word, and the day's machine time.

use crate::world::*;
use uspx_colony::*;

const STAGES: [Stage; 4] = [Stage::Label, Stage::Distil, Stage::Export, Stage::JudgeStudents];

/// A campaign that nobody has worked on yet.
fn begun(config: CampaignConfig) -> (Service, World) {
    let world = World::new(config);
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    service.see("b");
    (service, world)
}

/// A campaign that waits, all measured, for a person to let its student be made.
fn held(name: &str) -> (Service, World) {
    let (mut service, world) = begun(campaign(name));
    service.event(Event::Hold);
    service.drain(&world);
    (service, world)
}

#[test]
fn a_held_colony_measures_on_and_waits_with_its_student() {
    let (mut service, world) = held("held");
    let state = service.colony.state();
    assert_eq!((state.waits(), state.ending()), (Some(KeptBack::Held), None));
    assert_eq!(service.opened(Stage::JudgeMasks), 1);
    assert_eq!(STAGES.map(|stage| service.opened(stage)), [0; 4]);
    assert_eq!(service.colony.step(Event::Hold).records, [], "it is held already");
    service.replays();

    // A restart does not forget it.
    let mut again = Colony::resume(service.colony.state().clone());
    assert_eq!(again.step(Event::Started).records, []);

    service.event(Event::Resume);
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    assert_eq!(service.colony.step(Event::Resume).records, [], "it is not held");
    service.replays();
}

#[test]
fn what_is_out_is_finished_and_what_is_judged_is_decided() {
    for (at, stage) in STAGES.into_iter().enumerate() {
        let (mut service, world) = begun(campaign("out"));
        while service.colony.state().stage() != Some(stage) {
            let (worker, task) = service.queues.remove(0);
            service.answer(world.answer(&task, &worker));
        }
        service.event(Event::Hold);
        service.drain(&world);
        let opened = STAGES.map(|stage| service.opened(stage));
        assert_eq!(opened, [0, 1, 2, 3].map(|n| usize::from(n <= at)), "{stage:?}");
        let is_judged = stage == Stage::JudgeStudents;
        assert_eq!(service.ending, is_judged.then_some(Ending::Published(1)), "{stage:?}");
        let waits = service.colony.state().waits();
        assert_eq!(waits, (!is_judged).then_some(KeptBack::Held), "{stage:?}");
    }
}

#[test]
fn a_word_makes_one_student_and_the_hold_stays() {
    let (mut service, mut world) = held("one");
    let step = service.colony.step(Event::Build);
    assert_eq!(step.records.first(), Some(&Record::StudentAsked));
    service.take(step);
    assert_eq!(service.colony.step(Event::Build).records, [], "it is being made");
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    assert!(service.colony.state().is_held());
    assert_eq!(service.colony.step(Event::Build).records, [], "there is nothing to make");

    // As many new prompts as another student needs.
    let new = (0..60).map(|at| prompt(&format!("new{at}")));
    world.config.prompts.extend(new.map(|p| PromptEntry::of(&p, Split::Train)));
    assert_eq!(service.want(&world.config), Amending::GoesOn);
    service.drain(&world);
    assert_eq!(service.colony.state().waits(), Some(KeptBack::Held));
    assert_eq!(service.opened(Stage::Distil), 1);
    service.replays();
}

#[test]
fn the_last_word_counts() {
    let (mut service, world) = held("last");
    service.event(Event::Build);
    assert_eq!(service.colony.state().stage(), Some(Stage::Label));
    service.event(Event::Hold);
    service.drain(&world);
    assert_eq!(service.colony.state().waits(), Some(KeptBack::Held));
    assert_eq!((service.opened(Stage::Label), service.opened(Stage::Distil)), (1, 0));
}

/// Hours of so many milliseconds.
fn limited(name: &str, millis: f64) -> CampaignConfig {
    let mut config = campaign(name);
    config.distil.hours_a_day = millis / 3_600_000.0;
    config.trust.duplicates = Share::percent(0);
    config
}

/// The machine time of a campaign's labels: each answer of the world takes 5 ms.
fn labelling() -> f64 {
    let (service, _) = honest(limited("labels", 0.0));
    let labels = service.ledger.iter().filter_map(|record| match record {
        Record::EpochOpened { stage: Stage::Label, tasks, .. } => Some(tasks.len()),
        _ => None,
    });
    5.0 * labels.sum::<usize>() as f64
}

#[test]
fn a_day_s_machine_time_is_not_begun_beyond() {
    let labels = labelling();
    assert!(labels > 5.0);
    for (limit, batches) in [(labels, 1), (labels + 1.0, 2)] {
        let (mut service, world) = begun(limited("day", limit));
        service.event(Event::Day { day: 20_000 });
        service.drain(&world);
        let opened: usize = STAGES.iter().map(|stage| service.opened(*stage)).sum();
        assert_eq!(opened, batches, "{limit}");
        let state = service.colony.state();
        assert_eq!((state.waits(), state.spent().day), (Some(KeptBack::Spent), 20_000));
        service.replays();
    }
}

#[test]
fn a_budget_smaller_than_any_batch_makes_one_a_day() {
    let (mut service, world) = begun(limited("least", 1e-3));
    for (day, batches) in (20_000..).zip(1..=4) {
        service.event(Event::Day { day });
        assert_eq!(service.colony.step(Event::Day { day }).records, [], "it is this day");
        service.drain(&world);
        let opened: usize = STAGES.iter().map(|stage| service.opened(*stage)).sum();
        assert_eq!(opened, batches);
    }
    assert_eq!(service.ending, Some(Ending::Published(1)));
    service.replays();
}

#[test]
fn a_word_makes_a_student_beyond_the_day_s_time() {
    let (mut service, world) = begun(limited("asked", 1e-3));
    service.drain(&world);
    assert_eq!(service.colony.state().waits(), Some(KeptBack::Spent), "of no day that was told");
    service.event(Event::Build);
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    assert_eq!(service.colony.state().kept_back(), Some(KeptBack::Spent));
}

#[test]
fn days_are_noted_only_where_they_count_and_an_absurd_time_costs_one() {
    let (mut service, world) = begun(campaign("free"));
    assert_eq!(service.colony.step(Event::Day { day: 9 }).records, []);
    service.run(&world);
    assert_eq!(service.colony.state().spent(), Spent::default());

    let (mut service, world) = begun(limited("absurd", 1e12));
    service.event(Event::Day { day: 9 });
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        let answer = world.answer(&task, &worker);
        service.answer(uspx_domain::Answer { millis: u64::MAX, ..answer });
    }
    let tasks = service.ledger.iter().filter_map(|record| match record {
        Record::EpochOpened { stage, tasks, .. } if STAGES.contains(stage) => Some(tasks.len()),
        _ => None,
    });
    assert_eq!(service.colony.state().spent().millis, tasks.sum::<usize>() as u64 * 86_400_000);
}

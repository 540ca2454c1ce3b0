//! Trainings that several machines share: round by round, machines join and leave between rounds,
//! and what is lost costs its share.

use crate::world::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use uspx_colony::together::Shared;
use uspx_colony::*;
use uspx_domain::*;

/// Of a hundred batches a pass, three machines take ninety a round: eight rounds in four passes.
fn together(name: &str, machines: u32) -> CampaignConfig {
    let mut config = service::small(name);
    config.together.machines = machines;
    config
}

fn begun(config: CampaignConfig, workers: &[&str]) -> (Service, World) {
    let world = World::new(config);
    let mut service = Service::default();
    service.found(&world.config);
    workers.iter().for_each(|w| service.see(w));
    (service, world)
}

/// What a task of a shared training is of it: of which recipe, and of which round and machine; none
/// of these at its end.
type At = (u32, Option<(u32, u32)>);

fn place(task: &PlannedTask) -> Option<At> {
    match (&task.work, &task.purpose) {
        (Work::Part(_), Purpose::Part { recipe, round, at }) => {
            Some((*recipe, Some((*round, *at))))
        }
        (Work::Part(_), Purpose::Adapter(recipe)) => Some((*recipe, None)),
        _ => None,
    }
}

/// Lets workers answer, but for those parts that a worker says can never be done.
fn run_but(service: &mut Service, world: &World, hopeless: impl Fn(At) -> bool) {
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        service.answer(match place(&task).is_some_and(&hopeless) {
            true => failed(&task, &worker, FailureReason::NotFinite),
            false => world.answer(&task, &worker),
        });
    }
}

/// The batches of work of the training, since the ledger had so many records.
fn batches(service: &Service, since: usize) -> Vec<&Vec<PlannedTask>> {
    let mut batches = Vec::new();
    for record in &service.ledger[since..] {
        if let Record::EpochOpened { stage: Stage::Distil, tasks, .. } = record {
            batches.push(tasks);
        }
    }
    batches
}

fn part(task: &PlannedTask) -> &Part {
    match &task.work {
        Work::Part(part) => part,
        other => panic!("{}", other.name()),
    }
}

fn shared(service: &Service) -> &BTreeMap<u32, Shared> {
    &service.colony.state().results().shared
}

fn machines(shared: &Shared) -> Vec<u32> {
    shared.rounds.values().map(|round| round.machines).collect()
}

fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> State {
    let mut state = State::default();
    records.into_iter().for_each(|r| state.fold(r));
    state
}

/// Invariant 1 holds for their ledgers too.
fn replays(service: &Service) {
    let bytes = replay(&service.ledger).snapshot().unwrap();
    assert!(bytes == service.colony.state().snapshot().unwrap(), "the replayed state differs");
    assert!(State::restore(&bytes).unwrap().snapshot().unwrap() == bytes);
}

#[test]
fn three_machines_train_both_recipes_round_by_round_to_a_release() {
    let (mut service, world) = begun(together("three", 3), &["a", "b", "c"]);
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let batches = batches(&service, 0);
    assert_eq!(batches.len(), 9, "eight rounds and the end, both recipes in each");
    for (round, tasks) in batches[..8].iter().enumerate() {
        let places: Vec<_> = tasks.iter().map(|t| place(t).unwrap()).collect();
        let wanted = |recipe| (0..3).map(move |at| (recipe, Some((round as u32, at))));
        assert_eq!(places, wanted(0).chain(wanted(1)).collect::<Vec<_>>());
        for task in *tasks {
            let part = part(task);
            let (_, Some((_, at))) = place(task).unwrap() else { panic!("no end yet") };
            assert_eq!((part.place, part.steps), (Place::Machine { at, of: 3 }, 30));
            assert_eq!((part.rounds.len(), task.model), (round, fingerprint("student")));
            assert!(part.rounds.iter().all(|r| r.machines == 3 && r.told.len() == 3));
            assert_eq!(part.train, self::part(&batches[0][0]).train);
        }
    }
    let ends: Vec<_> = batches[8].iter().map(|t| place(t).unwrap()).collect();
    assert_eq!(ends, [(0, None), (1, None)]);
    // What the machines told stands in their order in every later task.
    let known = &shared(&service)[&1];
    let told: Vec<Told> = known.rounds[&0].told.values().copied().collect();
    assert_eq!(part(&batches[8][1]).rounds[0].told, told);
    assert_eq!(told.iter().map(|t| t.tokens).collect::<Vec<_>>(), [100, 101, 102]);
    assert_eq!(known.losses, [(1, 4.0), (2, 3.5), (3, 3.2), (4, 3.1)].into());
    let report = report(service.colony.state()).unwrap();
    assert_eq!((report.trainings.len(), report.chosen_recipe), (2, Some(1)));
    replays(&service);
}

#[test]
fn two_passes_that_gain_nothing_end_a_training_early() {
    let (mut service, mut world) = begun(together("vain", 3), &["a", "b", "c"]);
    world.losses = vec![4.0, 4.0, 4.5, 3.0];
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    // Two rounds of each of two passes, and the first of the third, which says what these were worth.
    assert_eq!(shared(&service)[&0].rounds.len(), 5);
    assert_eq!(batches(&service, 0).len(), 6);
}

#[test]
fn a_part_that_is_given_up_costs_its_share_and_comes_too_late_ever_after() {
    let (mut service, world) = begun(together("lost", 3), &["a", "b", "c"]);
    let mut late = None;
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        match place(&task) {
            Some((0, Some((1, 2)))) => {
                service.answer(failed(&task, &worker, FailureReason::NotFinite));
                late = Some((worker, task));
            }
            Some((0, Some((3, _)))) if late.is_some() => {
                // Whoever gave it up comes with an answer after all, two rounds later.
                let (who, lost) = late.take().unwrap();
                let verdict = service.answer(world.answer(&lost, &who));
                assert_eq!(verdict, Some(Verdict::Accepted));
                service.answer(world.answer(&task, &worker));
            }
            _ => drop(service.answer(world.answer(&task, &worker))),
        }
    }
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let known = &shared(&service)[&0];
    assert_eq!(known.rounds[&1].told.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert_eq!((known.rounds.len(), known.rounds[&1].machines), (8, 3), "its batches are gone");
    for tasks in &batches(&service, 0)[2..] {
        let of_first = tasks.iter().filter(|t| place(t).unwrap().0 == 0);
        assert!(of_first.map(part).all(|p| p.rounds[1].told.len() == 2), "no round changes later");
    }
    replays(&service);
}

#[test]
fn a_round_that_nobody_answers_ends_its_recipe_and_no_other() {
    let (mut service, world) = begun(together("one", 3), &["a", "b", "c"]);
    run_but(&mut service, &world, |(recipe, at)| recipe == 1 && at.is_some_and(|at| at.0 == 2));
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let known = shared(&service);
    assert_eq!((known[&0].rounds.len(), known[&1].rounds.len()), (8, 3));
    assert!(known[&0].ended && !known[&1].ended);
    let adapters = &service.colony.state().results().adapters;
    assert_eq!(adapters.keys().copied().collect::<Vec<_>>(), [0]);
    replays(&service);
}

#[test]
fn where_no_training_comes_to_an_end_the_campaign_says_why() {
    for hopeless in
        [(|(_, at)| at.is_some_and(|(round, _)| round == 1)) as fn(At) -> bool, |(_, at)| {
            at.is_none()
        }]
    {
        let (mut service, world) = begun(together("none", 2), &["a", "b"]);
        run_but(&mut service, &world, hopeless);
        let Some(Ending::Failed(why)) = &service.ending else { panic!("{:?}", service.ending) };
        assert!(why.starts_with("no training succeeded: ") && why.contains("part tasks"), "{why}");
        assert!(why.contains("given up: two workers say: "), "{why}");
        replays(&service);
    }
}

#[test]
fn machines_join_and_leave_between_rounds() {
    let (mut service, world) = begun(together("moving", 3), &["a"]);
    // One that lacks the student, and one of before there were parts, are no machines of theirs.
    let (speaks, holds) = (Speaks::here(), vec![fingerprint("teacher")]);
    service.event(Event::WorkerSeen { worker: worker("bare"), speaks, holds });
    let mut older = Speaks::here();
    older.jobs.remove("part");
    service.hear("older", older);
    while service.ending.is_none() {
        let (who, task) = service.queues.remove(0);
        match place(&task) {
            Some((0, Some((0, 0)))) => ["b", "c", "d"].iter().for_each(|w| service.see(w)),
            Some((0, Some((2, 0)))) => {
                for gone in ["b", "c"] {
                    service.event(Event::WorkerLost { worker: worker(gone) });
                }
            }
            Some((0, Some((4, 0)))) => {
                service.event(Event::WorkerLost { worker: worker("d") });
            }
            _ => {}
        }
        // What was at a machine that is gone lies with another now.
        let holder = &service.colony.state().tickets()[&task.id];
        if holder.is_out_at(&who) {
            service.answer(world.answer(&task, &who));
        }
    }
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let dealt = machines(&shared(&service)[&0]);
    assert_eq!(dealt[..5], [1, 3, 3, 2, 2], "{dealt:?}");
    assert!(dealt[5..].iter().all(|n| *n == 1), "at least one, and who is there: {dealt:?}");
    replays(&service);
}

#[test]
fn a_machine_that_rests_is_dealt_nothing() {
    let (mut service, world) = begun(together("rests", 3), &["a", "b", "c"]);
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        let first = matches!(place(&task), Some((_, Some((0, _)))));
        service.answer(match first && worker.as_str() == "c" {
            true => failed(&task, &worker, FailureReason::Scratch),
            false => world.answer(&task, &worker),
        });
        if matches!(place(&task), Some((_, Some((2, _))))) {
            service.wake();
        }
    }
    let dealt = machines(&shared(&service)[&0]);
    assert_eq!(dealt[..4], [3, 2, 2, 3], "{dealt:?}");
}

#[test]
fn workers_of_before_leave_it_undone_and_say_so() {
    let (mut service, world) = begun(together("old", 2), &[]);
    let mut speaks = Speaks::here();
    speaks.jobs.remove("part");
    service.hear("old", speaks);
    while service.ending.is_none() {
        if service.queues.is_empty() {
            service.event(Event::NobodySpeaks);
            continue;
        }
        let (worker, task) = service.queues.remove(0);
        service.answer(world.answer(&task, &worker));
    }
    let Some(Ending::Failed(why)) = &service.ending else { panic!("{:?}", service.ending) };
    assert!(why.contains("no worker here speaks part tasks"), "{why}");
}

#[test]
fn labels_that_come_late_do_not_deal_a_training_anew() {
    let mut config = together("labels", 2);
    config.distil.label_batch = Some(20);
    let (mut service, world) = begun(config, &["a", "b"]);
    let mut late = None;
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        let is_lost = matches!(task.purpose, Purpose::Labels(Split::Train));
        if is_lost && late.as_ref().is_none_or(|(_, t): &(_, PlannedTask)| t.id == task.id) {
            service.answer(failed(&task, &worker, FailureReason::NotFinite));
            late = Some((worker, task));
        } else {
            if matches!(place(&task), Some((0, Some((1, 0))))) {
                let (who, lost) = late.clone().unwrap();
                service.answer(world.answer(&lost, &who));
            }
            service.answer(world.answer(&task, &worker));
        }
    }
    assert_eq!(service.ending.clone(), Some(Ending::Published(1)));
    let batches = batches(&service, 0);
    let first = &part(&batches[0][0]).train;
    let labels = &service.colony.state().results().labels[&Split::Train];
    assert_eq!(labels.len(), first.len() + 1, "the late ones are kept");
    assert!(batches.iter().flat_map(|b| b.iter()).all(|t| part(t).train == *first));
}

#[test]
fn what_is_shared_otherwise_is_trained_anew_and_nothing_else_is() {
    let (mut service, mut world) = begun(together("amended", 3), &["a", "b", "c"]);
    service.run(&world);
    let change = |config: &mut CampaignConfig, at| match at {
        0 => config.distil.calibration += 1,
        1 => config.together.machines = 2,
        2 => config.together.steps = 100,
        3 => config.together.machines = 1,
        _ => config.together.steps = 7,
    };
    for (at, trained) in [0, 9, 5, 1, 0].into_iter().enumerate() {
        change(&mut world.config, at);
        let before = service.ledger.len();
        assert_eq!(service.want(&world.config), Amending::GoesOn);
        service.run(&world);
        assert!(matches!(service.ending, Some(Ending::Published(_))), "{:?}", service.ending);
        assert_eq!(batches(&service, before).len(), trained, "change {at}");
        replays(&service);
    }
    assert!(shared(&service).is_empty(), "rounds of a training that is no more are forgotten");
}

#[test]
fn a_change_between_rounds_that_trains_nothing_anew_goes_on_with_them() {
    let (mut service, mut world) = begun(together("between", 3), &["a", "b", "c"]);
    let mut changed = false;
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        if matches!(place(&task), Some((_, Some((3, _))))) && !changed {
            changed = true;
            world.config.distil.calibration += 1;
            assert_eq!(service.want(&world.config), Amending::GoesOn);
        }
        service.answer(world.answer(&task, &worker));
    }
    assert_eq!(service.ending, Some(Ending::Published(1)));
    assert!(service.ledger.iter().any(|r| matches!(r, Record::Amended(_))));
    assert_eq!((shared(&service)[&0].rounds.len(), batches(&service, 0).len()), (8, 9));
    replays(&service);
}

/// Crash and restart between any two answers: the same rounds.
#[test]
fn a_restart_in_any_round_plans_what_was_planned() {
    let (mut service, world) = begun(together("restart", 3), &["a", "b", "c"]);
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        service.answer(world.answer(&task, &worker));
        if place(&task).is_some() && service.ending.is_none() {
            service.colony = Colony::resume(replay(&service.ledger));
            ["a", "b", "c"].iter().for_each(|w| service.see(w));
            service.event(Event::Started);
        }
    }
    let (mut straight, world) = begun(together("restart", 3), &["a", "b", "c"]);
    straight.run(&world);
    assert_eq!(machines(&shared(&service)[&0]), machines(&shared(&straight)[&0]));
    assert_eq!(service.ending, straight.ending);
    replays(&service);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let refused = |machines, steps| {
        let mut config = together("bad", machines);
        config.together.steps = steps;
        config.check()
    };
    assert_eq!(refused(64, 1), Ok(()));
    assert!(matches!(refused(65, 1), Err(ConfigError::Range("together.machines", _))));
    assert!(matches!(refused(2, 0), Err(ConfigError::Range("together.steps", _))));
}

/// Campaigns from before there was any sharing keep their bytes, and so their tasks' names; their
/// states too.
#[test]
fn a_campaign_without_sharing_is_the_bytes_that_it_was() {
    let says = |bytes: &[u8], key: &[u8]| bytes.windows(key.len()).any(|w| w == key);
    let alone = campaign("old");
    let bytes = rmp_serde::to_vec_named(&alone).unwrap();
    assert!(!says(&bytes, b"\xa8together"));
    assert_eq!(rmp_serde::from_slice::<CampaignConfig>(&bytes).unwrap(), alone);
    let with = together("new", 2);
    let bytes = rmp_serde::to_vec_named(&with).unwrap();
    assert!(says(&bytes, b"\xa8together"));
    assert_eq!(rmp_serde::from_slice::<CampaignConfig>(&bytes).unwrap(), with);
    for (machines, is_said) in [(0, false), (1, false), (2, true)] {
        let (mut service, world) = begun(together("state", machines), &["a", "b"]);
        service.run(&world);
        assert_eq!(says(&service.colony.state().snapshot().unwrap(), b"\xa6shared"), is_said);
        let parts = batches(&service, 0).iter().any(|b| b.iter().any(|t| place(t).is_some()));
        assert_eq!((parts, batches(&service, 0).len() == 1), (is_said, !is_said));
    }
}

/// The ledger with each epoch's acceptances in another order, and some of them again with another
/// blob, loss and count. Comparisons come after what they compare with.
fn shuffled(ledger: &[Record], dice: &mut Dice) -> Vec<Record> {
    let (mut out, mut held, mut compared) = (Vec::new(), Vec::new(), Vec::new());
    for record in ledger {
        match record {
            Record::Accepted { .. } => held.push(record.clone()),
            Record::Compared { .. } => compared.push(record.clone()),
            Record::EpochClosed { .. } => {
                dice.shuffle(&mut held);
                let again = held.iter().filter(|_| dice.below(2) == 0).map(falsified);
                let again: Vec<Record> = again.collect();
                out.append(&mut held);
                out.append(&mut compared);
                out.extend(again);
                out.push(record.clone());
            }
            _ => out.push(record.clone()),
        }
    }
    out
}

fn falsified(record: &Record) -> Record {
    let Record::Accepted { answer } = record else { return record.clone() };
    let mut answer = answer.clone();
    if let Outcome::Told { told, loss, left, .. } = &mut answer.outcome {
        (*told, *loss, *left) = (Told { blob: BlobRef::to(b"other"), tokens: 1 }, Some(0.5), 0);
    }
    Record::Accepted { answer }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn invariant_1_answers_of_a_round_in_any_order_and_twice_are_the_same_state(seed: u64) {
        static LEDGER: std::sync::OnceLock<Vec<Record>> = std::sync::OnceLock::new();
        let ledger = LEDGER.get_or_init(|| {
            let (mut service, world) = begun(together("order", 3), &["a", "b", "c"]);
            run_but(&mut service, &world, |(recipe, at)| (recipe, at) == (1, Some((2, 1))));
            service.ledger
        });
        let truth = replay(ledger).snapshot().unwrap();
        let other = replay(&shuffled(ledger, &mut Dice::new(seed, "shuffle", 0)));
        prop_assert!(other.snapshot().unwrap() == truth, "the replayed state differs");
    }
}

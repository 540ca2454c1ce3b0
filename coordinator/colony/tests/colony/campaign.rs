//! Whole campaigns with made-up workers: they end, find what was planted, and survive what workers
//! do to them.

use crate::world::*;
use std::collections::BTreeMap;
use uspx_colony::*;
use uspx_domain::*;

#[test]
fn an_honest_campaign_ends_in_a_release_and_finds_the_planted_units() {
    let (service, world) = honest(campaign("honest"));
    let state = service.colony.state();
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let version = state.mask().unwrap();
    // Half of the units is more than what matters, so the last places go to near ties: what is
    // asked is that no planted unit is cut and that the mask costs hardly more than a perfect
    // judge's.
    let cost = |kept: &dyn Fn(&Unit) -> bool| {
        world.effects.iter().filter(|(u, _)| !kept(u)).map(|(_, e)| e).sum::<f64>()
    };
    let perfect = truth(&world.config, &world.effects);
    let (ours, best) = (cost(&|u| version.mask.keeps(*u)), cost(&|u| perfect.contains(u)));
    assert!(world.effects.iter().all(|(u, e)| *e < 0.1 || version.mask.keeps(*u)));
    assert!(ours < 1.1 * best, "our mask costs {ours}, a perfect one {best}");
    let report = report(state).unwrap();
    // Both are shown as JSON, whose maps have no structured keys.
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<CampaignReport>(&text).unwrap().students.len(), 7);
    assert_eq!(serde_json::to_value(report::units(state)).unwrap().as_array().unwrap().len(), 64);
    let costs = report.mask.unwrap();
    assert_eq!((costs.kept, costs.random.len(), costs.curve.len()), (32, 5, 6));
    assert!(costs.rise.unwrap() < 0.5 * costs.random_mean().unwrap(), "{costs:?}");
    assert!(costs.curve.windows(2).all(|w| w[0].1 <= w[1].1 + 1e-9), "{:?}", costs.curve);
    assert_eq!(report.students.len(), 7);
    assert_eq!(report.chosen_recipe, Some(1));
    assert!(state.gate().unwrap().passes());
    assert_eq!(service.masks, (1..=version.version).collect::<Vec<_>>());
}

#[test]
fn a_worse_student_is_refused_and_nothing_is_published() {
    let mut world = World::new(campaign("worse"));
    world.gain = -0.1;
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    service.run(&world);
    assert!(matches!(service.ending, Some(Ending::Refused(_))), "{:?}", service.ending);
    let state = service.colony.state();
    assert!(state.published().is_none());
    // The prompts that lost most are named, the most first.
    let [new, old] =
        [ExportFormat::gated().into(), Contender::Base].map(|who| state.judged(who).unwrap());
    let lost = new.iter().map(|(at, n)| (n.nats - old[at].nats).to_f64() / std::f64::consts::LN_2);
    let mut lost: Vec<f64> = lost.filter(|bits| *bits > 0.0).collect();
    lost.sort_by(|a, b| b.total_cmp(a));
    let found = report(state).unwrap().regressions.unwrap();
    assert_eq!((found.worse as usize, found.prompts as usize), (lost.len(), new.len()));
    assert_eq!(found.named.len(), lost.len().min(10));
    for (named, lost) in found.named.iter().zip(lost) {
        let entry = world.config.prompts.iter().find(|p| p.id == named.prompt).unwrap();
        assert!(entry.split == Split::Gate && (named.new - named.old - lost).abs() < 1e-9);
    }
}

#[test]
fn the_next_campaign_must_beat_the_published_student() {
    let (mut service, mut world) = honest(campaign("first"));
    let epoch = service.colony.state().epoch();
    world.config.name = "second".to_owned();
    service.found(&world.config);
    service.run(&world);
    // The same losses again: not surely better than what stands.
    assert!(matches!(service.ending, Some(Ending::Refused(_))), "{:?}", service.ending);
    let state = service.colony.state();
    assert_eq!(state.gate().unwrap().rival, Contender::Published);
    assert_eq!(state.published().unwrap().release, 1);
    assert!(state.epoch() > epoch);
}

/// What workers do to a colony: go away, come back, answer late, twice, falsely or not at all.
fn storm(seed: u64) -> Service {
    let world = World::new(campaign("storm"));
    let names = ["a", "b", "c"];
    let mut dice = Dice::new(seed, "storm", 0);
    let mut service = Service::default();
    service.found(&world.config);
    names.iter().for_each(|n| service.see(n));
    let mut late: Vec<(WorkerId, PlannedTask)> = Vec::new();
    for _ in 0..100_000 {
        if service.ending.is_some() {
            break;
        }
        let name = names[dice.below(3) as usize];
        match dice.below(40) {
            0 => {
                late.extend(service.queues.iter().filter(|(w, _)| w.as_str() == name).cloned());
                service.event(Event::WorkerLost { worker: worker(name) });
            }
            1..4 => service.see(name),
            4 if !late.is_empty() => {
                let (worker, task) = late.swap_remove(dice.below(late.len() as u32) as usize);
                service.answer(world.answer(&task, &worker));
            }
            5 if service.ledger.len() > 10 => {
                // The coordinator dies; what was sent may be lost with it, or not.
                let mut state = State::default();
                service.ledger.iter().for_each(|r| state.fold(r));
                service.colony = Colony::resume(state);
                service.queues.retain(|_| dice.below(2) == 0);
                service.event(Event::Started);
            }
            6 if !service.queues.is_empty() => {
                let (worker, task) =
                    service.queues[dice.below(service.queues.len() as u32) as usize].clone();
                late.push((worker.clone(), task.clone()));
                service.event(Event::LeaseLost { task: task.id, worker });
            }
            _ if !service.queues.is_empty() => {
                let (worker, task) =
                    service.queues.remove(dice.below(service.queues.len() as u32) as usize);
                service.answer(world.answer(&task, &worker));
                if dice.below(10) == 0 {
                    service.answer(world.answer(&task, &worker));
                }
            }
            _ => {
                service.event(Event::Tick);
            }
        }
    }
    service
}

/// Against what the world says of every gate prompt.
#[test]
fn what_a_masked_teacher_saves_and_costs_is_told() {
    let mut config = campaign("masked");
    config.judge.label_rise = 0.3;
    let (service, world) = honest(config);
    let state = service.colony.state();
    let mask = state.results().label_mask.clone().unwrap();
    let told = report(state).unwrap().mask.unwrap().masked_teacher.unwrap();
    let cut = mask.cut(&shape(), UnitKind::Expert);
    assert!(!cut.is_empty() && (told.cut as usize, told.units) == (cut.len(), 64));
    assert!((told.unread - cut.len() as f64 / 64.0).abs() < 1e-12, "layers are alike");
    assert_eq!((told.prompts, told.held_out, told.dreams), (340, 80, 0));
    assert!(told.validation.unwrap() <= 0.3 && told.bound == 0.3);
    let gate = world.config.split(Split::Gate);
    let tokens: u32 = gate.iter().map(|at| world.tokens(*at)).sum();
    let under = |at: &u32| cut.iter().map(|unit| world.truth(*at, *unit)).sum::<f64>();
    let rise = gate.iter().map(under).sum::<f64>() / f64::from(tokens);
    let (low, high) = told.rise_interval.unwrap();
    assert!((told.rise.unwrap() - rise).abs() < 1e-3, "{told:?} {rise}");
    assert!(low < rise && rise < high, "{told:?}");

    let mut config = campaign("whole");
    config.judge.label_rise = 0.0;
    let (service, _) = honest(config);
    assert_eq!(report(service.colony.state()).unwrap().mask.unwrap().masked_teacher, None);
}

/// Invariant 3, and the first half of invariant 1.
#[test]
fn invariant_3_no_task_is_forgotten_and_each_is_answered_once() {
    for seed in 0..6 {
        let service = storm(seed);
        assert!(
            service.ending.is_some(),
            "seed {seed} never ends: {:?}",
            service.colony.state().progress()
        );
        let mut planned = BTreeMap::new();
        for record in &service.ledger {
            match record {
                Record::EpochOpened { tasks, .. } => {
                    planned.extend(tasks.iter().map(|t| (t.id, (0, false))))
                }
                Record::Accepted { answer } => planned.get_mut(&answer.task).unwrap().0 += 1,
                Record::GivenUp { task, .. } => planned.get_mut(task).unwrap().1 = true,
                _ => {}
            }
        }
        for (id, (answers, given_up)) in &planned {
            assert!(
                *answers == 1 || (*answers == 0 && *given_up),
                "seed {seed}: task {id} has {answers} answers"
            );
        }
        assert!(planned.values().filter(|(_, given_up)| *given_up).count() * 10 < planned.len());
    }
}

#[test]
fn a_lost_worker_s_tasks_go_to_another_first() {
    let mut service = Service::default();
    service.found(&campaign("lost"));
    service.see("a");
    assert_eq!(service.queues.len(), 2, "two tasks ahead, no more");
    let lost: Vec<TaskId> = service.queues.iter().map(|(_, t)| t.id).collect();
    service.see("b");
    service.event(Event::WorkerLost { worker: worker("a") });
    service.see("a");
    let world = World::new(campaign("lost"));
    while service.queues.iter().any(|(w, _)| w.as_str() == "b") {
        let at = service.queues.iter().position(|(w, _)| w.as_str() == "b").unwrap();
        let (worker, task) = service.queues.remove(at);
        service.answer(world.answer(&task, &worker));
        if lost
            .iter()
            .all(|id| service.colony.state().tickets().get(id).is_none_or(|t| t.is_settled()))
        {
            break;
        }
    }
    for record in &service.ledger {
        if let Record::Accepted { answer } = record {
            assert!(!lost.contains(&answer.task) || answer.worker == worker("b"));
        }
    }
}

#[test]
fn a_late_answer_to_a_task_given_up_counts_in_the_next_epoch() {
    let world = World::new(campaign("late"));
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    let (who, task) = service.queues[0].clone();
    while service.colony.state().tickets()[&task.id].given_up.is_none() {
        service.queues.sort_by_key(|(_, t)| t.id != task.id);
        service.fail(FailureReason::Unsupported);
    }
    while service.colony.state().epoch() == task.epoch {
        let (worker, task) = service.queues.remove(0);
        service.answer(world.answer(&task, &worker));
    }
    let unit = Unit { kind: UnitKind::Expert, layer: 0, index: 0 };
    let prompts =
        |s: &Service| s.colony.state().trails().get(Statistic::EASY_EP, unit).unwrap().n.to_f64();
    let before = prompts(&service);
    assert_eq!(service.answer(world.answer(&task, &who)), Some(Verdict::Accepted));
    assert_eq!(prompts(&service), before, "nothing acts before the close");
    let epoch = service.colony.state().epoch();
    while service.colony.state().epoch() == epoch {
        let (worker, task) = service.queues.remove(0);
        service.answer(world.answer(&task, &worker));
    }
    assert!(
        (prompts(&service) - (0.98 * before + 100.0)).abs() < 1e-6,
        "{} {before}",
        prompts(&service)
    );
}

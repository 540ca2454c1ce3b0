//! Invariant 5: workers are not believed.

use crate::world::*;
use uspx_colony::state::Fate;
use uspx_colony::*;
use uspx_domain::*;

/// A whole campaign of workers one of whom scales all losses.
fn scaled(name: &str, workers: &[&str], liar: &str) -> Service {
    let mut world = World::new(campaign(name));
    world.config.trust.duplicates = Share::percent(10);
    world.config.probe.units_per_task = Some(2);
    let mut service = Service::default();
    service.found(&world.config);
    workers.iter().for_each(|n| service.see(n));
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        let mut answer = world.answer(&task, &worker);
        if let Outcome::Losses(rows) = &mut answer.outcome
            && worker.as_str() == liar
        {
            rows.iter_mut().flat_map(|r| &mut r.nats).for_each(|x| *x *= 1.5);
        }
        service.answer(answer);
    }
    service
}

/// Invariant 5: at most one task in ten goes out twice, and a liar among three is found.
#[test]
fn invariant_5_a_liar_is_quarantined() {
    let service = scaled("liar", &["honest-a", "honest-b", "liar"], "liar");
    let accounts = service.colony.state().accounts();
    assert!(accounts[&worker("liar")].quarantined.is_some(), "{accounts:?}");
    assert!(accounts.iter().all(|(w, a)| w.as_str() == "liar" || a.quarantined.is_none()));
    let count = |duplicates: bool| {
        service
            .ledger
            .iter()
            .filter(|r| matches!(r, Record::Issued { duplicate, .. } if *duplicate == duplicates))
            .count()
    };
    assert!(
        count(true) > 0 && count(true) * 10 <= count(false),
        "{} of {}",
        count(true),
        count(false)
    );
}

/// A world of nine workers who answer in any order, one of whom tells the truth about the whole model and lies about cuts.
fn with_liar(name: &str, share: Share) -> (Service, World) {
    let mut world = World::new(campaign(name));
    world.config.mind = campaign::MindPlan::default();
    world.config.trust.duplicates = share;
    world.config.probe.units_per_task = Some(2);
    // A mask that is soon stable ends nothing early.
    world.config.probe.exact_least = world.config.probe.exact_pairs;
    let mut service = Service::default();
    service.found(&world.config);
    ["a", "b", "c", "d", "e", "f", "g", "h", "liar"].iter().for_each(|n| service.see(n));
    let mut dice = Dice::new(0, "who is next", 0);
    while service.ending.is_none() {
        assert!(!service.queues.is_empty(), "stuck at {:?}", service.colony.state().progress());
        let next = dice.below(service.queues.len() as u32) as usize;
        let (worker, task) = service.queues.remove(next);
        let mut answer = world.answer(&task, &worker);
        if let (Outcome::Losses(rows), Purpose::Evidence, "liar") =
            (&mut answer.outcome, &task.purpose, worker.as_str())
        {
            let lie = |x: &mut f32| *x *= 1.5;
            rows.iter_mut().skip(1).flat_map(|r| &mut r.nats).for_each(lie);
        }
        service.answer(answer);
    }
    (service, world)
}

/// Invariant 5: nothing stays of what a liar said, and its share is measured anew.
#[test]
fn invariant_5_what_a_liar_said_is_taken_back() {
    let (service, world) = with_liar("taken back", Share::percent(10));
    let state = service.colony.state();
    assert!(state.accounts()[&worker("liar")].quarantined.is_some());
    let (mut effects, mut lies) = (0, 0);
    for unit in shape().units(UnitKind::Expert) {
        for (at, effect) in state.effects(unit) {
            effects += 1;
            let by = state.by_prompt().measured_by(&effect).unwrap();
            lies += usize::from(by.as_str() == "liar");
            let truth = world.truth(at, unit);
            assert!((f64::from(effect.nats) - truth).abs() < 1e-3, "{} {truth}", effect.nats);
        }
    }
    assert_eq!(lies, 0);
    assert!(effects >= world.config.probe.exact_pairs, "its pairs are asked for again: {effects}");
    assert!(service.ledger.iter().any(|r| matches!(r, Record::Settled { .. })));
    // The ledger says it all.
    let mut replayed = State::default();
    service.ledger.iter().for_each(|r| replayed.fold(r));
    assert!(replayed.snapshot().unwrap() == state.snapshot().unwrap());
    assert!(replayed.deviations().is_empty());
}

/// Invariant 5: where nothing may go out twice, a lie is believed; so the tests above can fail.
#[test]
fn invariant_5_without_comparisons_a_lie_stands() {
    let (service, _) = with_liar("believed", Share::percent(0));
    let state = service.colony.state();
    assert!(state.accounts()[&worker("liar")].quarantined.is_none());
    let mut lies = 0;
    for unit in shape().units(UnitKind::Expert) {
        let by = |effect| state.by_prompt().measured_by(&effect).map(WorkerId::as_str);
        lies += state.effects(unit).filter(|(_, effect)| by(*effect) == Some("liar")).count();
    }
    assert!(lies > 0);
}

/// Invariant 5: of two workers that differ nobody can say who is right: the first answer stands, and neither is put
/// out.
#[test]
fn invariant_5_two_that_differ_are_both_kept() {
    let service = scaled("two", &["a", "b"], "b");
    assert!(service.ledger.iter().any(|r| matches!(r, Record::Disputed { .. })));
    assert!(service.colony.state().accounts().values().all(|a| a.quarantined.is_none()));
}

/// Invariant 5: what does not fit its task is refused by name, and three of those end a worker's
/// part.
#[test]
fn invariant_5_false_answers_are_refused() {
    let world = World::new(campaign("false"));
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    service.see("b");
    let (who, task) = service.queues.remove(0);
    let good = world.answer(&task, &who);
    let verdict = |change: &dyn Fn(&mut Answer)| {
        let mut answer = good.clone();
        change(&mut answer);
        check::check(&world.config, service.colony.state().tickets().get(&answer.task), &answer)
    };
    fn scores(answer: &mut Answer) -> &mut Deposit {
        match &mut answer.outcome {
            Outcome::Scores(d) => d,
            _ => unreachable!(),
        }
    }
    assert_eq!(verdict(&|_| {}), Ok(()));
    assert_eq!(verdict(&|a| a.task = TaskId::derived(b"other")), Err(Refusal::UnknownTask));
    assert_eq!(verdict(&|a| a.worker = worker("z")), Err(Refusal::NotAsked));
    assert_eq!(verdict(&|a| a.outcome = Outcome::Losses(vec![])), Err(Refusal::Kind("trace")));
    assert_eq!(verdict(&|a| scores(a).prompts.swap(0, 1)), Err(Refusal::Prompts));
    assert_eq!(
        verdict(&|a| scores(a).columns[0].values[3] = f32::NAN),
        Err(Refusal::Value("a score"))
    );
    assert_eq!(verdict(&|a| scores(a).columns[0].values[3] = -1.0), Err(Refusal::Value("a score")));
    assert_eq!(verdict(&|a| scores(a).columns[0].values[3] = 2e6), Err(Refusal::Value("a score")));
    assert_eq!(
        verdict(&|a| scores(a).columns[0].statistic = Statistic::EXACT),
        Err(Refusal::Statistic(Statistic::EXACT))
    );
    let far = Unit { kind: UnitKind::Expert, layer: 0, index: 16 };
    assert_eq!(verdict(&|a| scores(a).columns[0].unit = far), Err(Refusal::Unit(far)));
    assert!(matches!(
        verdict(&|a| scores(a).columns[0].values.truncate(1)),
        Err(Refusal::Count { .. })
    ));
    let again = |a: &mut Answer| {
        let column = scores(a).columns[0].clone();
        scores(a).columns.push(column);
    };
    assert!(matches!(verdict(&again), Err(Refusal::Twice(..))));

    let mut bad = good.clone();
    scores(&mut bad).columns[0].values[0] = f32::INFINITY;
    for _ in 0..3 {
        assert!(matches!(service.answer(bad.clone()), Some(Verdict::Refused(_))));
    }
    assert_eq!(service.answer(good), Some(Verdict::Quarantined));
    let ticket = &service.colony.state().tickets()[&task.id];
    assert!(
        ticket.attempts.iter().any(|a| a.worker != who && a.fate == Fate::Out),
        "{:?}",
        ticket.attempts
    );
}

/// A task that is being compared is taken back with its prompt: nobody waits for it.
#[test]
fn what_is_being_compared_may_be_taken_out() {
    let mut world = World::new(campaign("taken out"));
    world.config.trust.duplicates = Share::percent(10);
    world.config.probe.trace_batch = Some(10);
    let mut service = Service::default();
    service.found(&world.config);
    ["a", "b"].iter().for_each(|n| service.see(n));
    let compared = |record: &Record| match record {
        Record::Issued { task, duplicate: true, .. } => Some(*task),
        _ => None,
    };
    let task = service.ledger.iter().find_map(compared).expect("one of a new worker");
    let gone = service.colony.state().tickets()[&task].task.work.prompts()[0];
    world.config.prompts.remove(gone as usize);
    assert_eq!(service.want(&world.config), Amending::GoesOn);
    assert!(!service.queues.iter().any(|(_, queued)| queued.id == task));
    let config = world.config.clone();
    world.config = World::new(campaign("taken out")).config;
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    assert!(config.prompts.len() < world.config.prompts.len());
}

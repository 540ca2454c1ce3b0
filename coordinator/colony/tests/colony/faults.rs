//! What machines, tasks and persons do to a campaign: only a fault of the task itself ends work.

use crate::world::*;
use uspx_colony::*;
use uspx_domain::*;

fn begun(name: &str, workers: &[&str]) -> (Service, World) {
    let world = World::new(campaign(name));
    let mut service = Service::default();
    service.found(&world.config);
    workers.iter().for_each(|w| service.see(w));
    (service, world)
}

fn given_up(service: &Service) -> usize {
    service.ledger.iter().filter(|r| matches!(r, Record::GivenUp { .. })).count()
}

fn machine_faults() -> impl Iterator<Item = FailureReason> {
    FailureReason::ALL.iter().copied().filter(|r| r.kind() == FailureKind::Machine)
}

#[test]
fn no_fault_of_the_only_machine_is_final() {
    for reason in machine_faults() {
        let (mut service, world) = begun("machine", &["a"]);
        for round in 0..9 {
            if service.queues.is_empty() {
                service.wake();
            }
            assert!(!service.queues.is_empty(), "{reason:?}: nothing is tried in round {round}");
            service.fail(reason);
        }
        service.wake();
        service.run(&world);
        assert_eq!(service.ending, Some(Ending::Published(1)), "{reason:?}");
        assert_eq!(given_up(&service), 0, "{reason:?}");
    }
}

#[test]
fn rests_grow_with_each_failure_and_end_with_the_first_success() {
    let (mut service, world) = begun("rests", &["a"]);
    let mut strikes = Vec::new();
    for _ in 0..4 {
        while !service.queues.is_empty() {
            service.fail(FailureReason::Scratch);
        }
        strikes.extend(service.rests.iter().map(|(_, n)| *n));
        assert_eq!(service.colony.resting().len(), 1);
        service.wake();
    }
    assert!(strikes.is_sorted_by(|a, b| a < b), "{strikes:?}");
    let (worker, task) = service.queues.remove(0);
    service.answer(world.answer(&task, &worker));
    service.fail(FailureReason::Scratch);
    assert_eq!(service.rests[0].1, 1, "one success makes good");
}

#[test]
fn who_fails_what_others_can_do_is_rested_not_obeyed() {
    let (mut service, world) = begun("rested", &["sick", "well"]);
    let (mut tried, mut done) = (0, 0);
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        if worker.as_str() == "sick" {
            tried += 1;
            service.answer(failed(&task, &worker, FailureReason::StoreLacks));
        } else {
            done += 1;
            service.answer(world.answer(&task, &worker));
        }
    }
    assert_eq!((service.ending.clone(), given_up(&service)), (Some(Ending::Published(1)), 0));
    // Two were on their way to it when the first failed.
    assert!(tried <= 2 && done > 20, "{tried} {done}");
}

#[test]
fn what_a_task_itself_is_to_blame_for_is_final_once_a_second_worker_says_so() {
    let (mut service, _) = begun("confirmed", &["a", "b"]);
    let (first, task) = service.fail(FailureReason::Unsupported);
    assert_eq!(given_up(&service), 0, "one worker's word is not enough");
    service.queues.sort_by_key(|(_, t)| t.id != task);
    let (second, again) = service.fail(FailureReason::Senseless);
    assert!(again == task && first != second);
    let ticket = &service.colony.state().tickets()[&task];
    assert_eq!(
        ticket.given_up.as_deref(),
        Some(
            "two workers say: the task makes no sense for its model; the worker's log has the \
             details"
        )
    );
}

#[test]
fn where_one_worker_is_all_there_is_three_tries_give_a_task_up() {
    let (mut service, _) = begun("alone", &["a"]);
    let task = service.queues[0].1.id;
    for tries in 1..=3 {
        service.queues.sort_by_key(|(_, t)| t.id != task);
        service.fail(FailureReason::NotFinite);
        let ticket = &service.colony.state().tickets()[&task];
        assert_eq!((ticket.failures(), ticket.given_up.is_some()), (tries, tries == 3));
    }
    let attempts = reasons::failed_attempts(service.colony.state());
    assert_eq!((attempts.len(), attempts[0].count), (1, 3));
}

#[test]
fn a_lone_worker_s_word_waits_for_a_second_that_could_contradict_it() {
    let (mut service, world) = begun("second", &["a"]);
    let task = service.queues[0].1.id;
    service.fail(FailureReason::NotFinite);
    service.see("b");
    while service.ending.is_none() {
        let (worker, work) = service.queues.remove(0);
        let bad = work.id == task && worker.as_str() == "a";
        service.answer(match bad {
            true => failed(&work, &worker, FailureReason::NotFinite),
            false => world.answer(&work, &worker),
        });
    }
    assert_eq!((service.ending.clone(), given_up(&service)), (Some(Ending::Published(1)), 0));
}

#[test]
fn a_worker_stopped_politely_nine_times_costs_nothing() {
    let (mut service, world) = begun("stopped", &["a"]);
    let task = service.queues[0].1.id;
    for _ in 0..9 {
        service.queues.sort_by_key(|(_, t)| t.id != task);
        assert_eq!(service.fail(FailureReason::Stopped).1, task);
    }
    let state = service.colony.state();
    assert_eq!(state.tickets()[&task].failures(), 0);
    assert_eq!(state.accounts()[&worker("a")].failed, 0);
    assert!(service.rests.is_empty(), "whoever stops is not sick");
    service.run(&world);
    assert_eq!((service.ending.clone(), given_up(&service)), (Some(Ending::Published(1)), 0));
}

#[test]
fn a_worker_without_the_model_is_not_asked_for_its_work() {
    let (mut service, world) = begun("models", &[]);
    let only = |name: &str| vec![fingerprint(name)];
    let speaks = Speaks::here;
    service.event(Event::WorkerSeen {
        worker: worker("s"),
        speaks: speaks(),
        holds: only("student"),
    });
    assert!(service.queues.is_empty(), "the teacher's tasks wait for one that holds it");
    service.event(Event::WorkerSeen {
        worker: worker("t"),
        speaks: speaks(),
        holds: only("teacher"),
    });
    service.run(&world);
    assert_eq!((service.ending.clone(), given_up(&service)), (Some(Ending::Published(1)), 0));
}

#[test]
fn a_person_s_word_ends_rests_or_gives_up_what_waits() {
    let (mut service, _) = begun("word", &["a"]);
    while !service.queues.is_empty() {
        service.fail(FailureReason::StoreDenied);
    }
    let mut patient = service.colony.clone();
    let step = patient.step(Event::Retry);
    assert!(step.commands.iter().any(|c| matches!(c, Command::Issue { .. })), "tried at once");
    service.event(Event::Abandon);
    let Some(Ending::Failed(why)) = &service.ending else { panic!("{:?}", service.ending) };
    assert!(why.contains("abandoned by a person's word"), "{why}");
}

/// Two tasks, the first worker gets both before the second is heard of: the second must not stand
/// idle while one of them waits.
#[test]
fn who_has_nothing_to_do_takes_over_what_waits_at_another() {
    let mut config = campaign("idle");
    config.probe.trace_batch = Some(150);
    let world = World::new(config);
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    let held = |service: &Service| -> Vec<(String, u32)> {
        service.queues.iter().map(|(w, t)| (w.to_string(), t.index)).collect()
    };
    assert_eq!(held(&service), [("a".to_owned(), 0), ("a".to_owned(), 1)]);
    service.see("b");
    assert_eq!(held(&service), [("a".to_owned(), 0), ("b".to_owned(), 1)]);
    let moved = |r: &&Record| matches!(r, Record::Lost { cause: Cause::Moved, .. });
    assert_eq!(service.ledger.iter().filter(moved).count(), 1);
    // Its late answer is as good as any, and no mark stands against whoever was slower.
    let task = service.queues[1].1.clone();
    service.answer(world.answer(&task, &worker("a")));
    assert!(service.colony.state().tickets()[&task.id].is_answered());
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let accounts = service.colony.state().accounts();
    assert!(accounts.values().all(|a| a.failed == 0 && a.refused == 0), "{accounts:?}");
}

/// What the only worker able to do it holds stays where it is.
#[test]
fn nothing_is_taken_over_by_who_cannot_do_it() {
    let (mut service, _) = begun("unable", &["a"]);
    let before = service.queues.clone();
    let holds = vec![fingerprint("student")];
    service.event(Event::WorkerSeen { worker: worker("b"), speaks: Speaks::here(), holds });
    assert_eq!(service.queues, before);
}

//! Workers of different releases in one colony: each is asked for what it speaks, and nobody waits
//! for ever.

use crate::world::*;
use uspx_colony::*;
use uspx_domain::*;

/// An older worker: it knows neither attribution patching nor how to export.
fn older() -> Speaks {
    let mut speaks = Speaks::here();
    speaks.estimators.remove("atp");
    speaks.jobs.remove("export");
    speaks
}

fn issued(service: &Service) -> Vec<(PlannedTask, WorkerId)> {
    let opened = service.ledger.iter().filter_map(|r| match r {
        Record::EpochOpened { tasks, .. } => Some(tasks),
        _ => None,
    });
    let tasks: Vec<&PlannedTask> = opened.flatten().collect();
    let of = |id: TaskId| (*tasks.iter().find(|t| t.id == id).unwrap()).clone();
    let issued = service.ledger.iter().filter_map(|r| match r {
        Record::Issued { task, worker, .. } => Some((of(*task), worker.clone())),
        _ => None,
    });
    issued.collect()
}

#[test]
fn a_campaign_of_two_releases_asks_each_worker_for_what_it_speaks() {
    let world = World::new(campaign("releases"));
    let mut service = Service::default();
    service.found(&world.config);
    service.hear("older", older());
    service.see("newer");
    service.hear("silent", Speaks::default());
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let of = |name: &str| {
        let all = issued(&service).into_iter().filter(|(_, w)| w.as_str() == name);
        all.map(|(task, _)| task.work.name()).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(of("silent").is_empty());
    assert!(
        of("older").contains("trace")
            && of("newer").contains("atp")
            && of("newer").contains("export")
    );
    assert!(!of("older").contains("atp") && !of("older").contains("export"), "{:?}", of("older"));
}

/// A worker that claims more than it reads says so at once: that is an attempt, and no mark against
/// the worker.
#[test]
fn what_a_worker_does_not_speak_goes_to_another() {
    let world = World::new(campaign("elsewhere"));
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    service.see("b");
    let (worker, task) = service.queues.remove(0);
    service.answer(failed(&task, &worker, FailureReason::NotSpoken));
    let again = service.queues.iter().find(|(_, t)| t.id == task.id).unwrap();
    assert_eq!(again.0.as_str(), "b");
    let (state, ticket) = (service.colony.state(), &service.colony.state().tickets()[&task.id]);
    assert_eq!((ticket.failures(), state.accounts()[&worker].failed), (1, 0));
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Published(1)));
}

fn said(service: &Service) -> &str {
    match &service.ending {
        Some(Ending::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tasks_that_nobody_reads_end_the_campaign_with_what_to_do() {
    let mut service = Service::default();
    service.found(&campaign("nobody"));
    service.see("a");
    service.see("b");
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        service.answer(failed(&task, &worker, FailureReason::NotSpoken));
    }
    let reason = said(&service);
    assert!(
        reason.contains("no worker here speaks trace tasks")
            && reason.contains("upgrade uspx on them"),
        "{reason}"
    );
}

#[test]
fn tasks_that_nobody_says_to_speak_wait_for_a_while_and_not_for_ever() {
    let world = World::new(campaign("waits"));
    let mut service = Service::default();
    service.found(&world.config);
    assert!(service.colony.unspoken().is_empty(), "nobody is here yet");
    let mute = || Speaks { estimators: [].into(), ..Speaks::here() };
    service.hear("a", mute());
    assert!(service.queues.is_empty());
    assert_eq!(service.colony.unspoken().len(), service.colony.state().tickets().len());
    let mut patient = service.colony.clone();
    patient.step(Event::WorkerSeen { worker: worker("b"), speaks: Speaks::here(), holds: vec![] });
    assert!(patient.unspoken().is_empty(), "one has come that speaks them");
    service.event(Event::NobodySpeaks);
    assert!(said(&service).contains("no worker here speaks trace tasks"), "{}", said(&service));
}

//! Under a paused clock.

use crate::gate::{Gate, Mode};
use crate::ground::{Running, coordinator, first_task, is_kept, ms, owned, post, refused};
use crate::paused;
use libtest_mimic::Trial;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use uspx_bus::{Bus, EmbeddedBus, QueueSpec};
use uspx_coordinator::ServiceError;
use uspx_domain::TaskId;
use uspx_runtime::Shutdown;
use uspx_wire::subjects::RESULTS;

pub fn trials() -> Vec<Trial> {
    vec![
        paused("a_second_coordinator_refuses", second_refuses()),
        paused("a_dead_coordinators_colony_is_taken_over", dead()),
        paused("a_zombie_acknowledges_nothing", zombie()),
        paused("a_foreign_answer_is_given_back_and_dies_at_last", foreign_answer()),
        paused("a_bus_without_room_ends_nobody", no_room()),
        paused("strays_are_closed_at_the_start", strays()),
    ]
}

const TAKEOVER: Duration = Duration::from_secs(60);

fn bus() -> Arc<dyn Bus> {
    Arc::new(EmbeddedBus::new())
}

async fn second_refuses() {
    let (bus, one, two) = (bus(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Running::start(one.path(), bus.clone(), TAKEOVER);
    owned(&bus, 1).await;
    let (mut second, never) = (coordinator(two.path(), bus.clone(), TAKEOVER), Shutdown::new());
    refused(timeout(TAKEOVER * 2, second.run(&never)).await.expect("said soon"));
    drop(second);
    assert!(!first.run.is_finished());
    first.stop().await;
    // What was let go needs no wait.
    let asked = tokio::time::Instant::now();
    let second = Running::start(two.path(), bus.clone(), TAKEOVER);
    owned(&bus, 2).await;
    assert!(asked.elapsed() < ms(500), "{:?}", asked.elapsed());
    second.stop().await;
}

async fn dead() {
    let (bus, one, two) = (bus(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let gate = Gate::before(&bus);
    let first = Running::start(one.path(), gate.clone(), TAKEOVER);
    owned(&bus, 1).await;
    gate.set(Mode::Stopped);
    first.run.abort();
    let asked = tokio::time::Instant::now();
    let second = Running::start(two.path(), bus.clone(), TAKEOVER);
    owned(&bus, 2).await;
    assert!(asked.elapsed() >= TAKEOVER, "{:?}", asked.elapsed());
    second.stop().await;
}

/// Stopped between an answer's record and its acknowledgement; then it goes on.
async fn zombie() {
    let (bus, one, two) = (bus(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let gate = Gate::before(&bus);
    let first = Running::start(one.path(), gate.clone(), TAKEOVER);
    let task = first_task(&bus).await;
    gate.set(Mode::HoldPublish);
    post(&bus, task).await;
    gate.holds().await;
    gate.set(Mode::Stopped);
    let second = Running::start(two.path(), bus.clone(), TAKEOVER);
    owned(&bus, 2).await;
    gate.set(Mode::Open);
    let ended = timeout(TAKEOVER, first.run).await.expect("it ends").unwrap();
    assert!(matches!(ended, Err(ServiceError::Replaced { .. })), "{ended:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(is_kept(&bus).await, "neither of the two acknowledged it");
    second.stop().await;
}

async fn foreign_answer() {
    let (bus, one) = (bus(), tempfile::tempdir().unwrap());
    let only = Running::start(one.path(), bus.clone(), TAKEOVER);
    owned(&bus, 1).await;
    post(&bus, TaskId::derived(b"of another ledger")).await;
    // A hundred deliveries a minute apart; a hot loop would be through at once.
    tokio::time::sleep(Duration::from_secs(95 * 60)).await;
    assert!(is_kept(&bus).await);
    tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    assert!(!is_kept(&bus).await, "settled as a dead letter");
    only.stop().await;
}

async fn no_room() {
    let (bus, one) = (bus(), tempfile::tempdir().unwrap());
    let gate = Gate::before(&bus);
    gate.set(Mode::NoRoom);
    let only = Running::start(one.path(), gate.clone(), TAKEOVER);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!only.run.is_finished(), "it waits at the start");
    gate.set(Mode::Open);
    owned(&bus, 1).await;
    gate.set(Mode::NoRoom);
    let founding = first_task(&bus);
    tokio::pin!(founding);
    let nothing = tokio::time::timeout(Duration::from_secs(300), &mut founding).await;
    assert!(nothing.is_err() && !only.run.is_finished(), "the task waits in the outbox");
    gate.set(Mode::Open);
    let task = founding.await;
    gate.set(Mode::NoRoom);
    post(&bus, task).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!is_kept(&bus).await, "acknowledged, which makes room");
    only.stop().await;
}

async fn strays() {
    let (bus, one) = (bus(), tempfile::tempdir().unwrap());
    for name in ["task.bogus-1", "task.bogus-2", RESULTS] {
        bus.ensure(&QueueSpec::new(name)).await.unwrap();
    }
    let only = Running::start(one.path(), bus.clone(), TAKEOVER);
    first_task(&bus).await;
    assert_eq!(bus.queues().await.unwrap(), [RESULTS, "task.w"]);
    only.stop().await;
    // One that the ledger knows, with its tasks, stays.
    let again = Running::start(one.path(), bus.clone(), TAKEOVER);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bus.queues().await.unwrap(), [RESULTS, "task.w"]);
    again.stop().await;
}

//! The last step of a campaign with a fault at each of its own: however often it breaks off, it
//! ends with one release, the right one, and the ledger says so.

// The lint's leave for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../asked/mod.rs"]
mod asked;
mod ground;
mod reports;
mod steps;
#[path = "../../../colony/tests/colony/world/mod.rs"]
mod world;

use ground::{Ground, draft_of_others};
use std::time::Duration;
use steps::{Fault, Steps};
use uspx_artifact::{Store, silent};
use uspx_colony::Ending;
use uspx_coordinator::{Finished, ServiceError};
use uspx_runtime::Shutdown;

/// A process dies at one step of publishing; the next one runs the same order again.
async fn dies_at_every_step(fault: Fault) {
    for step in 0.. {
        let ground = Ground::new().await;
        let (dying, steps) = Steps::over(&ground.store, fault, step..step + 1);
        let mut first = ground.coordinator(&dying);
        let shutdown = Shutdown::new();
        let died = tokio::select! {
            finished = first.run(&shutdown) => {
                assert_eq!(finished.unwrap(), Finished::Campaign(Ending::Published(1)));
                false
            }
            () = steps.stuck() => true,
        };
        drop(first);
        let again = ground.coordinator(&ground.store).run(&Shutdown::new()).await.unwrap();
        assert_eq!(again, Finished::Campaign(Ending::Published(1)), "step {step}");
        ground.assert_published(step).await;
        if !died {
            assert!(step > 20, "{step} steps cannot be all");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_before_any_step_loses_nothing() {
    dies_at_every_step(Fault::Stuck).await;
}

#[tokio::test(start_paused = true)]
async fn a_death_after_any_step_loses_nothing() {
    dies_at_every_step(Fault::StuckAfter).await;
}

/// The same process meets an error at one step, and goes on.
async fn errs_at_every_step(fault: Fault) {
    for step in 0.. {
        let ground = Ground::new().await;
        let (erring, steps) = Steps::over(&ground.store, fault, step..step + 1);
        let finished = ground.coordinator(&erring).run(&Shutdown::new()).await.unwrap();
        assert_eq!(finished, Finished::Campaign(Ending::Published(1)), "step {step}");
        ground.assert_published(step).await;
        if steps.taken() <= step {
            assert!(step > 20, "{step} steps cannot be all");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_before_any_step_is_waited_out() {
    errs_at_every_step(Fault::Denied).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_after_any_step_is_waited_out() {
    errs_at_every_step(Fault::Forgotten).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_denies_for_an_hour_gets_the_release_in_the_end() {
    let ground = Ground::new().await;
    let (denying, steps) = Steps::over(&ground.store, Fault::Denied, 0..20);
    let start = tokio::time::Instant::now();
    let finished = ground.coordinator(&denying).run(&Shutdown::new()).await.unwrap();
    assert_eq!(finished, Finished::Campaign(Ending::Published(1)));
    ground.assert_published(20).await;
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(1800), "{waited:?}: the pauses grow");
    assert!(steps.taken() < 100, "{} calls", steps.taken());
}

/// The ledger knows no release, the store has one.
#[tokio::test(start_paused = true)]
async fn a_student_judged_against_the_base_alone_is_held_before_another_release() {
    let ground = Ground::new().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("report.json"), "of others").unwrap();
    let other = ground.store.publish(folder.path(), &draft_of_others(), &silent).await.unwrap();
    let (counting, steps) = Steps::over(&ground.store, Fault::Denied, 0..0);
    for _start in 0..2 {
        let shutdown = Shutdown::new();
        let mut coordinator = ground.coordinator(&counting);
        let before = steps.taken();
        let run = coordinator.run(&shutdown);
        let stop = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            shutdown.cancel();
        };
        let (finished, ()) = tokio::join!(run, stop);
        assert_eq!(finished.unwrap(), Finished::Stopped, "held, not failed");
        assert!(steps.taken() - before < 20, "{} calls: it is not asked for ever", steps.taken());
    }
    assert_eq!(ground.store.list().await.unwrap(), [1]);
    assert_eq!(ground.store.manifest(1).await.unwrap(), other);
    assert_eq!(ground.endings(), [], "the order stays open");
    // Where the other release is gone, the order is carried out.
    let own = Store::memory();
    ground.fill(&own).await;
    let finished = ground.coordinator(&own).run(&Shutdown::new()).await.unwrap();
    assert_eq!(finished, Finished::Campaign(Ending::Published(1)));
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_publishing_ends_the_service_and_not_the_order() {
    let ground = Ground::new().await;
    let (broken, _) = Steps::over(&ground.store, Fault::Panic, 3..4);
    let mut first = ground.coordinator(&broken);
    let run = tokio::time::timeout(Duration::from_secs(3600), first.run(&Shutdown::new())).await;
    let error = run.expect("it waits for ever").unwrap_err();
    assert!(matches!(error, ServiceError::Publishing), "{error:?}");
    drop(first);
    let finished = ground.coordinator(&ground.store).run(&Shutdown::new()).await.unwrap();
    assert_eq!(finished, Finished::Campaign(Ending::Published(1)));
}

#[tokio::test(start_paused = true)]
async fn a_student_that_is_at_fault_itself_ends_the_campaign() {
    for adapter in ["no header", "short"] {
        let ground = Ground::with_adapter(adapter.into()).await;
        let finished = ground.coordinator(&ground.store).run(&Shutdown::new()).await.unwrap();
        assert!(matches!(&finished, Finished::Campaign(Ending::Failed(_))), "{finished:?}");
        assert_eq!(ground.store.latest().await.unwrap(), None);
    }
}

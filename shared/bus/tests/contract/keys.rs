//! Keys: the last value, and swaps that only one of many wins.

use crate::support::{Ground, ms};
use crate::{Clause, run};
use bytes::Bytes;
use libtest_mimic::Trial;
use std::sync::Arc;
use tokio::time::timeout;
use uspx_bus::{Bus, BusError, MAX_PAYLOAD, Revision, Swapped};
use uspx_wire::subjects::Names;

pub fn clauses() -> Vec<(&'static str, Clause)> {
    clauses![
        keys_hold_the_last_value,
        of_a_creation_race_one_wins,
        of_a_race_for_a_revision_one_wins,
        a_stale_revision_loses,
        a_swap_shows_in_a_watch,
        bad_swaps_are_refused,
    ]
}

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("nats::revisions_outlast_a_kill", || run(revisions_outlast_a_kill())),
        Trial::test("nats::a_swap_outlasts_an_outage", || run(a_swap_outlasts_an_outage())),
        Trial::test("nats::a_deleted_key_has_no_value", || run(a_deleted_key_has_no_value())),
    ]
}

async fn keys_hold_the_last_value(bus: Arc<dyn Bus>) {
    assert_eq!(bus.get("status").await.unwrap(), None);
    bus.put("status", "one".into()).await.unwrap();
    bus.put("status", "two".into()).await.unwrap();
    bus.put("mask", Bytes::from(vec![1; 300_000])).await.unwrap();
    assert_eq!(bus.get("status").await.unwrap(), Some("two".into()));
    assert_eq!(bus.get("mask").await.unwrap().unwrap().len(), 300_000);
    assert!(matches!(bus.get("a b").await, Err(BusError::Name(_))));
}

async fn swap(bus: &Arc<dyn Bus>, expected: Option<Revision>, value: &'static str) -> Swapped {
    bus.swap("owner", expected, value.into()).await.unwrap()
}

async fn won(bus: &Arc<dyn Bus>, expected: Option<Revision>, value: &'static str) -> Revision {
    match swap(bus, expected, value).await {
        Swapped::Done(revision) => revision,
        Swapped::Lost => panic!("{value} lost"),
    }
}

async fn found(bus: &Arc<dyn Bus>) -> (Bytes, Revision) {
    bus.get_revision("owner").await.unwrap().expect("a value")
}

/// Sixteen at once; the values of those who won.
async fn race(bus: &Arc<dyn Bus>, expected: Option<Revision>) -> Vec<Bytes> {
    let start = Arc::new(tokio::sync::Barrier::new(16));
    let racers = (0..16).map(|n| {
        let (bus, start) = (bus.clone(), start.clone());
        tokio::spawn(async move {
            let value = Bytes::from(format!("racer {n}"));
            start.wait().await;
            let swapped = bus.swap("owner", expected, value.clone()).await.unwrap();
            matches!(swapped, Swapped::Done(_)).then_some(value)
        })
    });
    let racers: Vec<_> = racers.collect();
    let mut winners = Vec::new();
    for racer in racers {
        winners.extend(racer.await.unwrap());
    }
    winners
}

async fn of_a_creation_race_one_wins(bus: Arc<dyn Bus>) {
    let winners = race(&bus, None).await;
    assert_eq!(winners, [found(&bus).await.0]);
}

async fn of_a_race_for_a_revision_one_wins(bus: Arc<dyn Bus>) {
    let first = won(&bus, None, "first").await;
    let winners = race(&bus, Some(first)).await;
    assert_eq!(winners, [found(&bus).await.0]);
}

async fn a_stale_revision_loses(bus: Arc<dyn Bus>) {
    assert!(bus.get_revision("owner").await.unwrap().is_none());
    let one = won(&bus, None, "one").await;
    assert_eq!(found(&bus).await, ("one".into(), one));
    assert_eq!(swap(&bus, None, "again").await, Swapped::Lost);
    let two = won(&bus, Some(one), "two").await;
    assert_eq!(swap(&bus, Some(one), "late").await, Swapped::Lost);
    let same = won(&bus, Some(two), "two").await;
    assert_ne!(same, two, "the same value is another revision");
    bus.put("owner", "put".into()).await.unwrap();
    assert_eq!(swap(&bus, Some(same), "late").await, Swapped::Lost, "a put counts");
    bus.put("other", "one".into()).await.unwrap();
    let (value, revision) = found(&bus).await;
    assert_eq!(value, "put");
    won(&bus, Some(revision), "other keys do not count").await;
}

async fn a_swap_shows_in_a_watch(bus: Arc<dyn Bus>) {
    let mut watch = bus.watch("owner").await.unwrap();
    let one = won(&bus, None, "one").await;
    assert_eq!(timeout(ms(4000), watch.next()).await.unwrap(), Some("one".into()));
    won(&bus, Some(one), "two").await;
    assert_eq!(timeout(ms(4000), watch.next()).await.unwrap(), Some("two".into()));
}

async fn bad_swaps_are_refused(bus: Arc<dyn Bus>) {
    assert!(matches!(bus.swap("a b", None, Bytes::new()).await, Err(BusError::Name(_))));
    assert!(matches!(bus.get_revision("a b").await, Err(BusError::Name(_))));
    let big = Bytes::from(vec![0; MAX_PAYLOAD + 1]);
    assert!(matches!(bus.swap("owner", None, big).await, Err(BusError::TooLarge { .. })));
}

async fn revisions_outlast_a_kill() {
    let mut ground = Ground::new();
    let bus: Arc<dyn Bus> = Arc::new(ground.connect().await);
    let one = won(&bus, None, "one").await;
    let two = won(&bus, Some(one), "two").await;
    ground.server.kill();
    ground.server.restart().unwrap();
    let other: Arc<dyn Bus> = Arc::new(ground.connect().await);
    assert_eq!(found(&other).await, ("two".into(), two));
    assert_eq!(swap(&other, Some(one), "stale").await, Swapped::Lost);
    won(&bus, Some(two), "three").await;
}

async fn a_swap_outlasts_an_outage() {
    let mut ground = Ground::new();
    let bus: Arc<dyn Bus> = Arc::new(ground.connect().await);
    let one = won(&bus, None, "one").await;
    ground.server.kill();
    let swapping = tokio::spawn({
        let bus = bus.clone();
        async move { won(&bus, Some(one), "two").await }
    });
    tokio::time::sleep(ms(500)).await;
    ground.server.restart().unwrap();
    let two = swapping.await.unwrap();
    assert_eq!(found(&bus).await, ("two".into(), two));
}

async fn a_deleted_key_has_no_value() {
    let ground = Ground::new();
    let bus: Arc<dyn Bus> = Arc::new(ground.connect().await);
    let client = async_nats::connect(ground.server.url()).await.unwrap();
    let mut last = won(&bus, None, "one").await;
    let jetstream = async_nats::jetstream::new(client);
    let bucket = jetstream.get_key_value(Names::default().bucket()).await.unwrap();
    for purge in [false, true] {
        match purge {
            true => bucket.purge("owner").await.unwrap(),
            false => bucket.delete("owner").await.unwrap(),
        }
        assert!(bus.get_revision("owner").await.unwrap().is_none());
        assert_eq!(bus.get("owner").await.unwrap(), None);
        assert_eq!(swap(&bus, Some(last), "stale").await, Swapped::Lost);
        let winners = race(&bus, None).await;
        assert_eq!(winners.len(), 1);
        last = found(&bus).await.1;
    }
}

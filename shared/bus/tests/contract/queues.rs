//! Queues: delivery, lease, ack, dedup, backpressure, withdrawal.

use crate::Clause;
use crate::support::{LEASE, ms, nothing_within, short, store, take};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use uspx_bus::{Bus, BusError, Lease, MAX_PAYLOAD, Published, QueueSpec};

pub fn clauses() -> Vec<(&'static str, Clause)> {
    clauses![
        acked_is_gone,
        first_in_first_out,
        waiting_pull_gets_it_at_once,
        lease_expiry_redelivers,
        progress_keeps_the_lease,
        late_progress_and_nak_touch_nothing,
        late_ack_settles,
        nak_redelivers_after_its_delay,
        term_removes,
        dedup_window,
        backpressure,
        withdraw_waiting_and_leased,
        queues_are_independent,
        concurrent_pullers_get_each_message_once,
        ensure_is_idempotent_and_changes_rules,
        remove_forgets_all,
        remove_takes_leased_and_dead_messages,
        queues_are_listed,
        bad_calls_are_refused,
    ]
}

async fn acked_is_gone(bus: Arc<dyn Bus>) {
    bus.ensure(&short("task.w")).await.unwrap();
    store(&bus, "task.w", "m1").await;
    let got = take(&bus, "task.w").await;
    assert_eq!((got.message_id.as_str(), got.deliveries, got.lease()), ("m1", 1, LEASE));
    assert_eq!(got.payload, "payload of m1");
    assert_eq!(bus.depth("task.w").await.unwrap(), 1);
    got.ack().await.unwrap();
    got.ack().await.unwrap();
    assert_eq!(bus.depth("task.w").await.unwrap(), 0);
    nothing_within(&bus, "task.w", LEASE + ms(150)).await;
}

async fn first_in_first_out(bus: Arc<dyn Bus>) {
    bus.ensure(&QueueSpec::new("result")).await.unwrap();
    let ids: Vec<String> = (0..20).map(|i| format!("m{i}")).collect();
    for id in &ids {
        store(&bus, "result", id).await;
    }
    for id in &ids {
        let got = bus.pull("result", Duration::ZERO).await.unwrap().unwrap();
        assert_eq!(got.message_id, *id);
        got.ack().await.unwrap();
    }
    nothing_within(&bus, "result", Duration::ZERO).await;
}

async fn waiting_pull_gets_it_at_once(bus: Arc<dyn Bus>) {
    bus.ensure(&short("task.w")).await.unwrap();
    let started = Instant::now();
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pull("task.w", ms(8000)).await.unwrap().unwrap().message_id }
    });
    sleep(ms(200)).await;
    store(&bus, "task.w", "m1").await;
    assert_eq!(waiting.await.unwrap(), "m1");
    assert!(started.elapsed() < ms(3000), "{:?}", started.elapsed());
}

async fn lease_expiry_redelivers(bus: Arc<dyn Bus>) {
    bus.ensure(&short("task.w")).await.unwrap();
    store(&bus, "task.w", "m1").await;
    let first = take(&bus, "task.w").await;
    nothing_within(&bus, "task.w", LEASE / 3).await;
    assert!(first.is_held());
    let second = take(&bus, "task.w").await;
    assert_eq!((second.message_id.as_str(), second.deliveries), ("m1", 2));
    assert_eq!(second.payload, "payload of m1");
    second.ack().await.unwrap();
}

async fn progress_keeps_the_lease(bus: Arc<dyn Bus>) {
    bus.ensure(&short("task.w")).await.unwrap();
    store(&bus, "task.w", "m1").await;
    let first = take(&bus, "task.w").await;
    let started = Instant::now();
    while started.elapsed() < LEASE * 2 {
        nothing_within(&bus, "task.w", LEASE / 4).await;
        assert_eq!(first.progress().await.unwrap(), Lease::Held);
    }
    let stopped = Instant::now();
    assert_eq!(take(&bus, "task.w").await.deliveries, 2);
    assert!(
        stopped.elapsed() >= LEASE / 2,
        "came again {:?} after the last progress",
        stopped.elapsed()
    );
}

async fn late_progress_and_nak_touch_nothing(bus: Arc<dyn Bus>) {
    bus.ensure(&short("task.w")).await.unwrap();
    store(&bus, "task.w", "m1").await;
    let first = take(&bus, "task.w").await;
    let second = take(&bus, "task.w").await;
    // The holder counts from when the message came, the broker from when it was sent.
    let replaced = Instant::now();
    while first.is_held() {
        assert!(replaced.elapsed() < LEASE, "still held {:?} after it went to another", LEASE);
        sleep(ms(5)).await;
    }
    assert_eq!(first.nak(Duration::ZERO).await.unwrap(), Lease::Lost);
    assert_eq!(first.progress().await.unwrap(), Lease::Lost);
    // Had either counted, the message would come at once, or later than the second holder's own
    // lease.
    nothing_within(&bus, "task.w", LEASE / 3).await;
    assert_eq!(second.progress().await.unwrap(), Lease::Held);
    second.ack().await.unwrap();
}

async fn late_ack_settles(bus: Arc<dyn Bus>) {
    bus.ensure(&short("task.w")).await.unwrap();
    store(&bus, "task.w", "m1").await;
    let first = take(&bus, "task.w").await;
    let second = take(&bus, "task.w").await;
    assert_eq!(second.deliveries, 2);
    first.ack().await.unwrap();
    assert_eq!(bus.depth("task.w").await.unwrap(), 0);
    assert_eq!(second.progress().await.unwrap(), Lease::Held);
    second.ack().await.unwrap();
    nothing_within(&bus, "task.w", LEASE + ms(150)).await;
    // The ack of a holder that is late but was not replaced counts as well.
    store(&bus, "task.w", "m2").await;
    let only = take(&bus, "task.w").await;
    sleep(LEASE + ms(100)).await;
    only.ack().await.unwrap();
    nothing_within(&bus, "task.w", LEASE).await;
}

async fn nak_redelivers_after_its_delay(bus: Arc<dyn Bus>) {
    bus.ensure(&QueueSpec::new("task.w")).await.unwrap();
    store(&bus, "task.w", "m1").await;
    assert_eq!(take(&bus, "task.w").await.nak(ms(600)).await.unwrap(), Lease::Held);
    nothing_within(&bus, "task.w", ms(200)).await;
    let again = take(&bus, "task.w").await;
    assert_eq!(again.deliveries, 2);
    let _ = again.nak(Duration::ZERO).await.unwrap();
    assert_eq!(take(&bus, "task.w").await.deliveries, 3);
}

async fn term_removes(bus: Arc<dyn Bus>) {
    bus.ensure(&short("task.w")).await.unwrap();
    store(&bus, "task.w", "m1").await;
    take(&bus, "task.w").await.term("it cannot be read").await.unwrap();
    assert_eq!(bus.depth("task.w").await.unwrap(), 0);
    nothing_within(&bus, "task.w", LEASE + ms(200)).await;
    assert!(bus.dead_letters(ms(200)).await.unwrap().is_none());
}

async fn dedup_window(bus: Arc<dyn Bus>) {
    let window = ms(1000);
    bus.ensure(&QueueSpec { dedup_window: window, ..QueueSpec::new("result") }).await.unwrap();
    let started = Instant::now();
    let publish = |id: &'static str| {
        let bus = bus.clone();
        async move { bus.publish("result", id, Bytes::from_static(b"x")).await.unwrap() }
    };
    assert_eq!(publish("m1").await, Published::Stored);
    assert_eq!(publish("m2").await, Published::Stored);
    assert_eq!(publish("m1").await, Published::Duplicate);
    take(&bus, "result").await.ack().await.unwrap();
    assert!(bus.withdraw("result", "m2").await.unwrap());
    let (acked, withdrawn) = (publish("m1").await, publish("m2").await);
    assert!(started.elapsed() < window, "too slow a machine for this test");
    assert_eq!((acked, withdrawn), (Published::Duplicate, Published::Duplicate));
    assert_eq!(bus.depth("result").await.unwrap(), 0);
    sleep(window + window / 2).await;
    assert_eq!(publish("m1").await, Published::Stored);
}

async fn backpressure(bus: Arc<dyn Bus>) {
    bus.ensure(&QueueSpec { max_messages: 2, ..QueueSpec::new("task.w") }).await.unwrap();
    store(&bus, "task.w", "m1").await;
    store(&bus, "task.w", "m2").await;
    let full = bus.publish("task.w", "m3", Bytes::new()).await.unwrap_err();
    assert!(matches!(&full, BusError::Full { queue } if queue == "task.w"), "{full}");
    assert!(full.is_retryable());
    assert_eq!(bus.publish("task.w", "m1", Bytes::new()).await.unwrap(), Published::Duplicate);
    let held = take(&bus, "task.w").await;
    assert!(bus.publish("task.w", "m3", Bytes::new()).await.is_err(), "leased messages count too");
    held.ack().await.unwrap();
    store(&bus, "task.w", "m3").await;
}

async fn withdraw_waiting_and_leased(bus: Arc<dyn Bus>) {
    bus.ensure(&short("task.w")).await.unwrap();
    for id in ["m1", "m2", "m3"] {
        store(&bus, "task.w", id).await;
    }
    assert!(bus.withdraw("task.w", "m2").await.unwrap());
    assert!(!bus.withdraw("task.w", "m2").await.unwrap());
    assert!(!bus.withdraw("task.w", "never").await.unwrap());
    let held = take(&bus, "task.w").await;
    assert!(bus.withdraw("task.w", "m1").await.unwrap());
    assert_eq!(held.progress().await.unwrap(), Lease::Held, "the holder is not told");
    held.ack().await.unwrap();
    let left = take(&bus, "task.w").await;
    assert_eq!(left.message_id, "m3");
    left.ack().await.unwrap();
    nothing_within(&bus, "task.w", LEASE + ms(200)).await;
    store(&bus, "task.w", "m1-again").await;
    assert_eq!(take(&bus, "task.w").await.message_id, "m1-again");
}

async fn queues_are_independent(bus: Arc<dyn Bus>) {
    let one = QueueSpec { max_messages: 1, ..QueueSpec::new("task.w1") };
    bus.ensure(&one).await.unwrap();
    bus.ensure(&QueueSpec { name: "task.w11".into(), ..one }).await.unwrap();
    store(&bus, "task.w1", "m1").await;
    store(&bus, "task.w11", "m1").await;
    let (a, b) = (take(&bus, "task.w1").await, take(&bus, "task.w11").await);
    assert!(bus.withdraw("task.w1", "m1").await.unwrap());
    a.ack().await.unwrap();
    assert_eq!((bus.depth("task.w1").await.unwrap(), bus.depth("task.w11").await.unwrap()), (0, 1));
    b.ack().await.unwrap();
    assert_eq!(bus.depth("task.w11").await.unwrap(), 0);
}

async fn concurrent_pullers_get_each_message_once(bus: Arc<dyn Bus>) {
    bus.ensure(&QueueSpec::new("task.w")).await.unwrap();
    let puller = |bus: Arc<dyn Bus>| async move {
        let mut ids = Vec::new();
        while let Some(got) = bus.pull("task.w", ms(700)).await.unwrap() {
            assert_eq!(got.deliveries, 1);
            got.ack().await.unwrap();
            ids.push(got.message_id.clone());
        }
        ids
    };
    let pullers: Vec<_> = (0..8).map(|_| tokio::spawn(puller(bus.clone()))).collect();
    for i in 0..150 {
        store(&bus, "task.w", &format!("m{i}")).await;
    }
    let mut all = Vec::new();
    for puller in pullers {
        all.extend(puller.await.unwrap());
    }
    assert_eq!(all.len(), 150);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 150);
}

async fn ensure_is_idempotent_and_changes_rules(bus: Arc<dyn Bus>) {
    let spec = QueueSpec { max_messages: 1, ..short("task.w") };
    bus.ensure(&spec).await.unwrap();
    store(&bus, "task.w", "m1").await;
    bus.ensure(&spec).await.unwrap();
    assert_eq!(bus.depth("task.w").await.unwrap(), 1);
    bus.ensure(&QueueSpec { max_messages: 2, lease: LEASE * 2, ..spec }).await.unwrap();
    store(&bus, "task.w", "m2").await;
    assert_eq!(take(&bus, "task.w").await.lease(), LEASE * 2);
}

async fn remove_forgets_all(bus: Arc<dyn Bus>) {
    bus.ensure(&short("task.w")).await.unwrap();
    store(&bus, "task.w", "m1").await;
    let held = take(&bus, "task.w").await;
    assert!(bus.remove("task.w").await.unwrap());
    assert!(!bus.remove("task.w").await.unwrap());
    held.ack().await.unwrap();
    let gone = bus.pull("task.w", ms(200)).await;
    assert!(matches!(gone, Err(BusError::NoQueue { .. })), "{gone:?}");
    bus.ensure(&short("task.w")).await.unwrap();
    store(&bus, "task.w", "m1").await;
    assert_eq!(take(&bus, "task.w").await.deliveries, 1);
}

async fn remove_takes_leased_and_dead_messages(bus: Arc<dyn Bus>) {
    let spec = QueueSpec { max_deliveries: 1, lease: LEASE * 4, ..QueueSpec::new("task.gone") };
    bus.ensure(&spec).await.unwrap();
    bus.ensure(&short("task.stays")).await.unwrap();
    store(&bus, "task.stays", "m1").await;
    for id in ["dead", "naked", "acked", "waiting"] {
        store(&bus, "task.gone", id).await;
    }
    let _ = take(&bus, "task.gone").await.nak(Duration::ZERO).await.unwrap();
    let (naked, acked) = (take(&bus, "task.gone").await, take(&bus, "task.gone").await);
    assert!(bus.remove("task.gone").await.unwrap());
    assert_eq!(naked.progress().await.map(|_| ()).map_err(|e| e.is_retryable()), Ok(()));
    let _ = naked.nak(Duration::ZERO).await.unwrap();
    acked.ack().await.unwrap();
    assert!(bus.dead_letters(ms(500)).await.unwrap().is_none(), "its dead letters went with it");
    bus.ensure(&spec).await.unwrap();
    assert_eq!(bus.depth("task.gone").await.unwrap(), 0);
    store(&bus, "task.gone", "acked").await;
    assert_eq!(take(&bus, "task.gone").await.deliveries, 1, "ids are forgotten too");
    assert_eq!(take(&bus, "task.stays").await.message_id, "m1");
}

async fn queues_are_listed(bus: Arc<dyn Bus>) {
    assert!(bus.queues().await.unwrap().is_empty());
    bus.put("status", "no queue".into()).await.unwrap();
    for name in ["task.w2", "result", "task.w-1"] {
        bus.ensure(&short(name)).await.unwrap();
    }
    assert_eq!(bus.queues().await.unwrap(), ["result", "task.w-1", "task.w2"]);
    bus.remove("task.w2").await.unwrap();
    assert_eq!(bus.queues().await.unwrap(), ["result", "task.w-1"]);
}

async fn bad_calls_are_refused(bus: Arc<dyn Bus>) {
    let missing = |e: BusError| {
        assert!(matches!(&e, BusError::NoQueue { queue } if queue == "task.x"), "{e}")
    };
    missing(bus.pull("task.x", ms(50)).await.unwrap_err());
    missing(bus.publish("task.x", "m", Bytes::new()).await.unwrap_err());
    missing(bus.withdraw("task.x", "m").await.unwrap_err());
    missing(bus.depth("task.x").await.unwrap_err());
    for bad in [
        QueueSpec::new("a b"),
        QueueSpec::new("a.*"),
        QueueSpec { max_deliveries: 0, ..QueueSpec::new("a") },
    ] {
        assert!(!bus.ensure(&bad).await.unwrap_err().is_retryable());
    }
    bus.ensure(&short("task.w")).await.unwrap();
    assert!(matches!(bus.publish("task.w", "a.b", Bytes::new()).await, Err(BusError::Name(_))));
    let big = Bytes::from(vec![0; MAX_PAYLOAD + 1]);
    assert!(matches!(
        bus.publish("task.w", "m", big.clone()).await,
        Err(BusError::TooLarge { .. })
    ));
    assert!(matches!(bus.broadcast("t", big).await, Err(BusError::TooLarge { .. })));
    let largest = Bytes::from(vec![7; MAX_PAYLOAD]);
    assert_eq!(bus.publish("task.w", "largest", largest.clone()).await.unwrap(), Published::Stored);
    assert_eq!(take(&bus, "task.w").await.payload, largest);
}

//! Dead letters.

use crate::Clause;
use crate::support::{LEASE, ms, nothing_within, short, store, take};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use uspx_bus::{Bus, DeadLetter, QueueSpec};

pub fn clauses() -> Vec<(&'static str, Clause)> {
    clauses![
        dead_after_the_last_lease,
        dead_after_the_last_nak,
        dead_letters_wait_for_one,
        late_ack_and_withdraw_empty_a_dead_letter,
    ]
}

async fn dead(bus: &Arc<dyn Bus>) -> DeadLetter {
    bus.dead_letters(ms(5000)).await.unwrap().expect("a dead letter")
}

async fn dead_after_the_last_lease(bus: Arc<dyn Bus>) {
    bus.ensure(&QueueSpec { max_deliveries: 2, ..short("task.w-1") }).await.unwrap();
    store(&bus, "task.w-1", "m1").await;
    assert_eq!(take(&bus, "task.w-1").await.deliveries, 1);
    assert_eq!(take(&bus, "task.w-1").await.deliveries, 2);
    nothing_within(&bus, "task.w-1", LEASE + ms(200)).await;
    let letter = dead(&bus).await;
    assert_eq!(
        (letter.queue.as_str(), letter.message_id.as_str(), letter.deliveries),
        ("task.w-1", "m1", 2)
    );
    assert_eq!(letter.payload, "payload of m1");
    assert_eq!(bus.depth("task.w-1").await.unwrap(), 1, "it keeps its place until settled");
    letter.settle().await.unwrap();
    assert_eq!(bus.depth("task.w-1").await.unwrap(), 0);
    assert!(bus.dead_letters(ms(300)).await.unwrap().is_none());
}

async fn dead_after_the_last_nak(bus: Arc<dyn Bus>) {
    bus.ensure(&QueueSpec { max_deliveries: 1, ..QueueSpec::new("task.w") }).await.unwrap();
    store(&bus, "task.w", "m1").await;
    let _ = take(&bus, "task.w").await.nak(Duration::ZERO).await.unwrap();
    nothing_within(&bus, "task.w", ms(300)).await;
    assert_eq!(dead(&bus).await.message_id, "m1");
}

async fn dead_letters_wait_for_one(bus: Arc<dyn Bus>) {
    bus.ensure(&QueueSpec { max_deliveries: 1, ..short("task.w") }).await.unwrap();
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { dead(&bus).await.message_id }
    });
    sleep(ms(100)).await;
    store(&bus, "task.w", "m1").await;
    drop(take(&bus, "task.w").await);
    assert_eq!(waiting.await.unwrap(), "m1");
}

async fn late_ack_and_withdraw_empty_a_dead_letter(bus: Arc<dyn Bus>) {
    bus.ensure(&QueueSpec { max_deliveries: 1, ..short("task.w") }).await.unwrap();
    store(&bus, "task.w", "withdrawn").await;
    drop(take(&bus, "task.w").await);
    sleep(LEASE + ms(400)).await;
    assert!(bus.withdraw("task.w", "withdrawn").await.unwrap());
    store(&bus, "task.w", "acked").await;
    let late = take(&bus, "task.w").await;
    sleep(LEASE + ms(400)).await;
    late.ack().await.unwrap();
    assert!(bus.dead_letters(ms(300)).await.unwrap().is_none());
    assert_eq!(bus.depth("task.w").await.unwrap(), 0);
}

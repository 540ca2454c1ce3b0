//! Topics, and what of keys is told.

use crate::Clause;
use crate::support::ms;
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::timeout;
use uspx_bus::{Bus, BusError, Listener};

pub fn clauses() -> Vec<(&'static str, Clause)> {
    clauses![broadcast_reaches_all_who_listen, watch_shows_values_as_they_change, answers_ping]
}

async fn heard(listener: &mut Listener) -> Bytes {
    timeout(ms(4000), listener.next()).await.expect("heard in time").expect("still open")
}

async fn broadcast_reaches_all_who_listen(bus: Arc<dyn Bus>) {
    bus.broadcast("hello", "too early".into()).await.unwrap();
    let mut one = bus.listen("hello").await.unwrap();
    let mut two = bus.listen("hello").await.unwrap();
    let mut other = bus.listen("hello.other").await.unwrap();
    bus.broadcast("hello", "a".into()).await.unwrap();
    bus.broadcast("hello", "b".into()).await.unwrap();
    assert_eq!((heard(&mut one).await, heard(&mut one).await), ("a".into(), "b".into()));
    assert_eq!((heard(&mut two).await, heard(&mut two).await), ("a".into(), "b".into()));
    assert!(timeout(ms(200), other.next()).await.is_err());
    assert!(matches!(bus.broadcast("a.>", Bytes::new()).await, Err(BusError::Name(_))));
}

async fn watch_shows_values_as_they_change(bus: Arc<dyn Bus>) {
    let mut early = bus.watch("mask").await.unwrap();
    assert!(timeout(ms(200), early.next()).await.is_err(), "there is no value yet");
    bus.put("mask", "one".into()).await.unwrap();
    assert_eq!(heard(&mut early).await, "one");
    let mut late = bus.watch("mask").await.unwrap();
    assert_eq!(heard(&mut late).await, "one");
    bus.put("mask", "two".into()).await.unwrap();
    assert_eq!((heard(&mut early).await, heard(&mut late).await), ("two".into(), "two".into()));
}

async fn answers_ping(bus: Arc<dyn Bus>) {
    assert!(bus.is_connected());
    bus.ping().await.unwrap();
}

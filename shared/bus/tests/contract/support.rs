//! A nats-server for one test, and short forms.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use uspx_bus::server::NatsServer;
use uspx_bus::{Bus, Delivery, NatsBus, NatsOptions, Published, QueueSpec};

/// A server on a store of its own.
pub struct Ground {
    pub server: NatsServer,
    pub store: TempDir,
}

impl Ground {
    pub fn new() -> Self {
        let store = tempfile::tempdir().unwrap();
        let server = NatsServer::start(store.path(), None).unwrap_or_else(|e| panic!("{e}"));
        Self { server, store }
    }

    pub async fn connect(&self) -> NatsBus {
        NatsBus::connect(&NatsOptions::new(self.server.url())).await.unwrap()
    }
}

pub const LEASE: Duration = Duration::from_millis(500);

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A queue with a short lease.
pub fn short(name: &str) -> QueueSpec {
    QueueSpec { lease: LEASE, ..QueueSpec::new(name) }
}

pub async fn store(bus: &Arc<dyn Bus>, queue: &str, id: &str) {
    let published = bus.publish(queue, id, Bytes::from(format!("payload of {id}"))).await.unwrap();
    assert_eq!(published, Published::Stored, "{id}");
}

/// The next message, which must come soon.
pub async fn take(bus: &Arc<dyn Bus>, queue: &str) -> Delivery {
    bus.pull(queue, ms(4000)).await.unwrap().expect("a message")
}

pub async fn nothing_within(bus: &Arc<dyn Bus>, queue: &str, wait: Duration) {
    let got = bus.pull(queue, wait).await.unwrap();
    assert!(got.is_none(), "{got:?}");
}

//! A task of the client library that panics does not leave its listeners waiting for ever. A binary
//! of its own: what makes it panic is this process' logger.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use libtest_mimic::{Arguments, Trial};
use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use uspx_bus::server::{NatsServer, find_program};
use uspx_bus::{Bus, BusError, NatsBus, NatsOptions, QueueSpec};
use uspx_tests::Need;

/// Panics when it hears that the connection is lost; in the task that tells of connections.
struct Panics;

impl Visit for Panics {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        assert!(!format!("{value:?}").contains("lost the NATS server"), "as the test wants it");
    }
}

impl Subscriber for Panics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Panics);
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

async fn a_panic_ends_what_waits() {
    tracing::subscriber::set_global_default(Panics).unwrap();
    let store = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start(store.path(), None).unwrap();
    let bus = NatsBus::connect(&NatsOptions::new(server.url())).await.unwrap();
    bus.ensure(&QueueSpec::new("result")).await.unwrap();
    let mut listener = bus.listen("hello").await.unwrap();
    let mut watch = bus.watch("status").await.unwrap();
    assert!(bus.is_connected());
    server.kill();
    server.restart().unwrap();
    let soon = Duration::from_secs(10);
    assert_eq!(timeout(soon, listener.next()).await.expect("the listener ends"), None);
    assert_eq!(timeout(soon, watch.next()).await.expect("the watch ends"), None);
    let pulled = bus.pull("result", Duration::from_millis(100)).await;
    assert!(matches!(pulled, Err(BusError::Closed)), "{pulled:?}");
    let dead = bus.dead_letters(Duration::from_millis(100)).await;
    assert!(matches!(dead, Err(BusError::Closed)), "{dead:?}");
    assert!(!BusError::Closed.is_retryable() && !bus.is_connected());
}

fn main() -> ExitCode {
    let test = Trial::test("a_panic_ends_what_waits", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(a_panic_ends_what_waits());
        Ok(())
    });
    let need = Need::new("nats-server", "USPX_REQUIRE_NATS", find_program().is_ok());
    libtest_mimic::run(&Arguments::from_args(), need.of_all(vec![test])).exit_code()
}

//! Measures task round trips per second (publish, pull, ack) on both backends.
//!
//! `cargo run --release -p uspx-bus --example round_trips` needs a nats-server for the second half.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uspx_bus::server::NatsServer;
use uspx_bus::{Bus, EmbeddedBus, NatsBus, NatsOptions, QueueSpec};

/// `lanes` workers, each with a queue of its own, one message in flight per worker.
async fn measure(name: &str, bus: Arc<dyn Bus>, lanes: usize, each: usize) {
    let payload = Bytes::from(vec![7; 2048]);
    for lane in 0..lanes {
        bus.ensure(&QueueSpec::new(format!("task.{name}{lane}"))).await.unwrap();
    }
    let started = Instant::now();
    let work = |lane: usize| {
        let (bus, payload, queue) = (bus.clone(), payload.clone(), format!("task.{name}{lane}"));
        tokio::spawn(async move {
            for i in 0..each {
                bus.publish(&queue, &format!("m{i}"), payload.clone()).await.unwrap();
                bus.pull(&queue, Duration::from_secs(5))
                    .await
                    .unwrap()
                    .unwrap()
                    .ack()
                    .await
                    .unwrap();
            }
        })
    };
    for lane in (0..lanes).map(work).collect::<Vec<_>>() {
        lane.await.unwrap();
    }
    let rate = (lanes * each) as f64 / started.elapsed().as_secs_f64();
    println!("{name:<9} {lanes:>2} at a time: {rate:>9.0} round trips/s");
}

#[tokio::main]
async fn main() {
    for lanes in [1, 16] {
        measure("embedded", Arc::new(EmbeddedBus::new()), lanes, 20_000 / lanes).await;
    }
    let store = std::env::temp_dir().join(format!("uspx-round-trips-{}", std::process::id()));
    let server = NatsServer::start(&store, None).unwrap();
    for lanes in [1, 16] {
        let bus = NatsBus::connect(&NatsOptions::new(server.url())).await.unwrap();
        measure(&format!("nats-{lanes}-"), Arc::new(bus), lanes, 4_000 / lanes).await;
    }
    drop(server);
    let _ = std::fs::remove_dir_all(store);
}

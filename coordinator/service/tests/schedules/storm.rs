//! A schedule, carried out.

use crate::colony::{ALWAYS, Colony};
use crate::fault::{Event, Fault, Pace, schedule};
use crate::gate::Mode;
use crate::scripted::Machine;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use uspx_bus::server::NatsServer;
use uspx_bus::{Bus, EmbeddedBus, NatsBus, NatsOptions};
use uspx_coordinator::ledger::Compaction;
use uspx_domain::Mask;

const WORKERS: [&str; 3] = ["a", "b", "c"];

/// Under a paused clock: an hour goes by in moments.
const SLOW: Pace = Pace {
    within: Duration::from_secs(90),
    longest: Duration::from_secs(50),
    work: Duration::from_secs(8),
    heartbeat: Duration::from_secs(2),
    silence: Duration::from_secs(15),
    lease: Duration::from_secs(30),
};
/// In real time.
const QUICK: Pace = Pace {
    within: Duration::from_secs(4),
    longest: Duration::from_secs(2),
    work: Duration::from_millis(150),
    heartbeat: Duration::from_millis(200),
    silence: Duration::from_secs(2),
    lease: Duration::from_secs(2),
};

/// The mask of a campaign that nothing disturbs.
static UNDISTURBED: OnceLock<Mask> = OnceLock::new();

/// Every other ledger is shortened all the time.
pub async fn on_the_embedded_bus(seed: u64) {
    undisturbed(SLOW).await;
    let events = schedule(seed, &SLOW, WORKERS.len(), false);
    let compaction = if seed.is_multiple_of(2) { Compaction::default() } else { ALWAYS };
    let colony = Colony::new(&embedded(), SLOW, compaction);
    judge(seed, &events, storm(colony, &events, None, &said(seed, &events)).await);
}

/// A coordinator that shortens its ledger at every close of an epoch, killed again and again.
pub async fn shortened_and_killed() {
    undisturbed(SLOW).await;
    let kill = |n: u32| {
        let (at, lasts) = (Duration::from_secs(7) * n, Duration::from_secs(1));
        Event { at, lasts, fault: Fault::KillCoordinator }
    };
    let events: Vec<Event> = (1..40).map(kill).collect();
    let colony = Colony::new(&embedded(), SLOW, ALWAYS);
    let (mask, whole) = storm(colony, &events, None, "shortened and killed").await;
    assert!(whole && Some(&mask) == UNDISTURBED.get(), "another mask");
}

fn embedded() -> Arc<dyn Bus> {
    Arc::new(EmbeddedBus::new())
}

async fn undisturbed(pace: Pace) {
    if UNDISTURBED.get().is_none() {
        let colony = Colony::new(&embedded(), pace, Compaction::default());
        let (mask, _) = storm(colony, &[], None, "undisturbed").await;
        UNDISTURBED.get_or_init(|| mask);
    }
}

pub async fn on_nats(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start(folder.path(), None).unwrap();
    let options = NatsOptions::new(server.url());
    let bus: Arc<dyn Bus> = Arc::new(NatsBus::connect(&options).await.unwrap());
    undisturbed(QUICK).await;
    let events = schedule(seed, &QUICK, WORKERS.len(), true);
    let what = said(seed, &events);
    let colony = Colony::new(&bus, QUICK, Compaction::default());
    judge(seed, &events, storm(colony, &events, Some(&mut server), &what).await);
}

fn said(seed: u64, events: &[Event]) -> String {
    format!("schedule {seed}: {events:?}")
}

fn judge(seed: u64, events: &[Event], (mask, whole): (Mask, bool)) {
    if whole {
        assert!(Some(&mask) == UNDISTURBED.get(), "another mask under {}", said(seed, events));
    }
}

async fn storm(
    mut colony: Colony,
    events: &[Event],
    mut server: Option<&mut NatsServer>,
    what: &str,
) -> (Mask, bool) {
    let pace = colony.pace;
    let machines = WORKERS.map(|name| {
        let (world, ledger, store) = (colony.world.clone(), colony.ledger(), colony.store.clone());
        Machine::new(name, world, ledger, store, pace)
    });
    colony.start();
    let mut workers: Vec<JoinHandle<()>> = machines.iter().map(|m| m.start(colony.bus())).collect();
    let begun = Instant::now();
    for event in events {
        tokio::time::sleep_until(begun + event.at).await;
        suffer(event, &mut colony, &machines, &mut workers, &mut server).await;
    }
    let ended =
        timeout(Duration::from_secs(if server.is_some() { 120 } else { 6 * 3600 }), async {
            while !colony.has_ended() {
                sleep(pace.heartbeat / 4).await;
            }
        });
    assert!(ended.await.is_ok(), "it does not end: {what}");
    workers.iter().for_each(JoinHandle::abort);
    colony.outcome(what).await
}

async fn suffer(
    event: &Event,
    colony: &mut Colony,
    machines: &[Machine; 3],
    workers: &mut [JoinHandle<()>],
    server: &mut Option<&mut NatsServer>,
) {
    match event.fault {
        Fault::KillCoordinator => {
            colony.kill().await;
            sleep(event.lasts).await;
        }
        Fault::StopCoordinator => {
            colony.stop().await;
            sleep(event.lasts).await;
        }
        Fault::KillWorker(who) => {
            workers[who].abort();
            sleep(event.lasts).await;
            workers[who] = machines[who].start(colony.bus());
        }
        Fault::StopWorker(who) => {
            workers[who].abort();
            machines[who].goodbye(&colony.bus()).await;
            sleep(event.lasts).await;
            workers[who] = machines[who].start(colony.bus());
        }
        Fault::Sick(who) => {
            *machines[who].sick.lock().unwrap() = true;
            sleep(event.lasts).await;
            *machines[who].sick.lock().unwrap() = false;
        }
        Fault::Away | Fault::NoRoom => {
            let away = event.fault == Fault::Away;
            colony.gate.set(if away { Mode::Away } else { Mode::NoRoom });
            sleep(event.lasts).await;
            colony.gate.set(Mode::Open);
        }
        Fault::KillBroker => {
            if let Some(server) = server {
                server.kill();
                sleep(event.lasts).await;
                server.restart().unwrap();
            }
        }
    }
    if !colony.has_ended() && colony.is_down() {
        colony.start();
    }
}

//! A schedule, carried out.

use crate::colony::Colony;
use crate::fault::{Event, Fault, Pace, schedule};
use crate::gate::Mode;
use crate::scripted::Machine;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use uspx_bus::server::NatsServer;
use uspx_bus::{Bus, EmbeddedBus, NatsBus, NatsOptions};
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

pub async fn on_the_embedded_bus(seed: u64) {
    if UNDISTURBED.get().is_none() {
        let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new());
        let (mask, _) = storm(&bus, SLOW, &[], None, "undisturbed").await;
        UNDISTURBED.set(mask).unwrap();
    }
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new());
    let events = schedule(seed, &SLOW, WORKERS.len(), false);
    judge(seed, &events, storm(&bus, SLOW, &events, None, &said(seed, &events)).await);
}

pub async fn on_nats(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start(folder.path(), None).unwrap();
    let options = NatsOptions::new(server.url());
    let bus: Arc<dyn Bus> = Arc::new(NatsBus::connect(&options).await.unwrap());
    if UNDISTURBED.get().is_none() {
        let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new());
        let (mask, _) = storm(&bus, QUICK, &[], None, "undisturbed").await;
        UNDISTURBED.set(mask).unwrap();
    }
    let events = schedule(seed, &QUICK, WORKERS.len(), true);
    let what = said(seed, &events);
    judge(seed, &events, storm(&bus, QUICK, &events, Some(&mut server), &what).await);
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
    bus: &Arc<dyn Bus>,
    pace: Pace,
    events: &[Event],
    mut server: Option<&mut NatsServer>,
    what: &str,
) -> (Mask, bool) {
    let mut colony = Colony::new(bus, pace);
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

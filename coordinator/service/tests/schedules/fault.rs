//! What can happen, when, and for how long.

use std::time::Duration;
use uspx_colony::Dice;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The coordinator's process is killed, and started again.
    KillCoordinator,
    /// It is asked to stop, and started again.
    StopCoordinator,
    /// A worker's process is killed, and started again.
    KillWorker(usize),
    /// It is asked to stop: what it is at goes back.
    StopWorker(usize),
    /// A worker's disk is full: it fails whatever it is given.
    Sick(usize),
    /// Nobody reaches the broker.
    Away,
    /// The broker's disk is full.
    NoRoom,
    /// The broker is killed, and started again (a real one only).
    KillBroker,
}

/// A fault in its place.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// How fast a schedule goes by.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Within which time faults begin.
    pub within: Duration,
    /// The longest that one lasts.
    pub longest: Duration,
    /// The longest that a task takes.
    pub work: Duration,
    pub heartbeat: Duration,
    pub silence: Duration,
    pub lease: Duration,
}

/// Six faults, in order.
pub fn schedule(seed: u64, pace: &Pace, workers: usize, real: bool) -> Vec<Event> {
    let mut dice = Dice::new(seed, "schedule", 0);
    let mut draw = |n: usize| ((dice.unit() * n as f64) as usize).min(n - 1);
    let mut events: Vec<Event> = (0..6)
        .map(|_| {
            let who = draw(workers);
            let kinds = [
                Fault::KillCoordinator,
                Fault::StopCoordinator,
                Fault::KillWorker(who),
                Fault::StopWorker(who),
                Fault::Sick(who),
                Fault::Away,
                Fault::NoRoom,
                if real { Fault::KillBroker } else { Fault::KillCoordinator },
            ];
            let part = |whole: Duration, n: usize| whole * (n as u32 + 1) / 100;
            Event {
                fault: kinds[draw(kinds.len())],
                at: part(pace.within, draw(100)),
                lasts: part(pace.longest, draw(100)),
            }
        })
        .collect();
    events.sort_by_key(|e| e.at);
    events
}

//! What a worker is started with.

use crate::planning::Machine;
use std::path::PathBuf;
use std::time::Duration;
use uspx_domain::WorkerId;

/// A worker's settings.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Its name in the colony.
    pub id: WorkerId,
    /// Where finished work and scratch files are kept.
    pub state: PathBuf,
    /// Model folders on this machine.
    pub models: Vec<PathBuf>,
    /// What of this machine it may use. Without a type, a worker computes in f32: its answers are
    /// compared with other machines'.
    pub machine: Machine,
    /// How its device is called, for people.
    pub device_name: String,
    /// Threads that it may use, for people and for planning.
    pub threads: u32,
    /// How often it says that it lives.
    pub heartbeat_every: Duration,
    /// How often the state of a long job is kept, and put where another machine finds it.
    pub keep_every: Duration,
}

impl WorkerSettings {
    /// A worker on the CPU with the usual times.
    pub fn on_cpu(id: WorkerId, models: Vec<PathBuf>, state: PathBuf) -> Self {
        Self {
            id,
            state,
            models,
            machine: Machine::cpu(),
            device_name: "cpu".to_owned(),
            threads: candle_core::utils::get_num_threads() as u32,
            heartbeat_every: Duration::from_secs(2),
            keep_every: Duration::from_secs(120),
        }
    }
}

//! What a worker is started with.

use candle_core::Device;
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
    /// Where it computes.
    pub device: Device,
    /// How that is called, for people.
    pub device_name: String,
    /// Threads that it may use, for people and for planning.
    pub threads: u32,
    /// Tokens run together.
    pub batch_tokens: usize,
    /// How often it says that it lives.
    pub heartbeat_every: Duration,
}

impl WorkerSettings {
    /// A worker on the CPU with the usual times.
    pub fn on_cpu(id: WorkerId, models: Vec<PathBuf>, state: PathBuf) -> Self {
        Self {
            id,
            state,
            models,
            device: Device::Cpu,
            device_name: "cpu".to_owned(),
            threads: candle_core::utils::get_num_threads() as u32,
            batch_tokens: 4096,
            heartbeat_every: Duration::from_secs(2),
        }
    }
}

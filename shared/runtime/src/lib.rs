//! Process hygiene that every uspx program shares: signals, telemetry, memory, configuration.

pub mod config;
pub mod memory;
pub mod shutdown;
pub mod telemetry;

pub use shutdown::Shutdown;

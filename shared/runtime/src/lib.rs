//! Process hygiene that every uspx program shares: signals, telemetry, memory, configuration, text
//! files.

pub mod config;
pub mod memory;
pub mod shutdown;
pub mod telemetry;
pub mod text;

pub use shutdown::Shutdown;

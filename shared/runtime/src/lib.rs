//! Process hygiene that every uspx program shares: signals, panics, telemetry, memory,
//! configuration, text files.

pub mod config;
pub mod folders;
pub mod host;
pub mod memory;
pub mod panics;
pub mod shutdown;
pub mod telemetry;
pub mod text;

pub use shutdown::Shutdown;

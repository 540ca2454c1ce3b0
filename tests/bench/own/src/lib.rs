//! Colonies of real processes for benchmarks: started, watched, and what their ledgers say was measured.

pub mod colony;
pub mod error;
pub mod ledger;
pub mod process;
pub mod split;

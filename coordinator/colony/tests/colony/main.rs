//! The colony's decisions, in a world without clock, network or disk.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod amended;
mod answers;
mod campaign;
mod diff;
mod drift;
mod faults;
mod finishes;
mod invariant_1;
mod invariant_2;
mod invariant_5;
mod mind;
mod plan;
mod saes;
mod seams;
mod sizes;
mod skipped;
mod spoken;
mod steps;
mod students;
mod together;
mod two_runs;
mod world;

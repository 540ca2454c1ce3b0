//! One adapter trained by several machines (DiLoCo, arXiv 2311.08105): in a round each takes some steps from
//! a common start, on batches of its own (`course`, `machine`), and tells in few bytes where they led
//! ([`sparse`]); of what all tell, every machine makes the same next start (`common`, by the steps of [`outer`]).
//!
//! Only B of an adapter's product B·A is learned, A stays as it was drawn (FFA-LoRA, arXiv 2403.12313): the mean of
//! the machines' B is then that of their products, and half as much is to be told. Means of A and B apart are not,
//! and a mean of products is of a higher rank than an adapter.
//!
//! What a machine keeps for the next round, its moments and what it left unsaid, is its own (`memory`): a machine
//! that comes anew begins without, one that is lost costs its share of a round. [`part`] is a machine's part and
//! the end where each round is a task; `rehearsal` is all of it on one machine, to see what sharing costs.

mod common;
mod course;
mod machine;
mod memory;
pub mod outer;
pub mod part;
pub(crate) mod rehearsal;
pub mod sparse;
mod underway;

pub use common::Told;

use crate::{DistillError, Result};

/// How a training is shared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sharing {
    /// Machines that take part.
    pub machines: usize,
    /// Steps of each between two exchanges.
    pub steps: usize,
    /// Bytes that a machine tells of a round, in parts of what its gradients would have been, as floats, after
    /// every step.
    pub told: f64,
    /// The outer step's rate.
    pub rate: f32,
    /// The outer step's momentum.
    pub momentum: f32,
}

impl Sharing {
    /// Among so many machines, as is usual.
    pub fn among(machines: usize) -> Self {
        Self { machines, steps: 30, told: 0.0009, rate: 1.0, momentum: 0.3 }
    }

    /// Share of the numbers that a machine tells of so many steps: the largest.
    pub(crate) fn share(&self, steps: usize) -> f64 {
        (self.told * 4.0 * steps as f64 / BYTES).min(1.0)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.machines > 0 && self.steps > 0 {
            return Ok(());
        }
        let why = "a shared training needs a machine, and steps between two exchanges";
        Err(DistillError::Recipe(why.into()))
    }
}

/// Bytes of a number that is told, about: fewer where many are.
const BYTES: f64 = 0.9;

/// What the machines told each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// Rounds.
    pub rounds: u32,
    /// Bytes that all machines together sent.
    pub bytes: u64,
    /// Bytes that they would have sent had they told their gradients, as floats, after every step.
    pub per_step: u64,
}

impl Exchanged {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            rounds: self.rounds + other.rounds,
            bytes: self.bytes + other.bytes,
            per_step: self.per_step + other.per_step,
        }
    }
}

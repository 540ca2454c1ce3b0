//! What a budget comes to: how a model is held, and how much of it runs at once.

use crate::placement::Holding;
use std::fmt;

/// How a model will be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where its weights are.
    pub holding: Holding,
    /// Tokens run together.
    pub batch_tokens: usize,
    /// Tokens that there is memory for at once, whether or not anything is gained by so many.
    pub room: usize,
    /// Bytes of residual streams kept in memory at layer boundaries; the rest goes to a temporary
    /// file.
    pub boundaries: usize,
    /// Bytes that the weights take.
    pub weights: u64,
    /// The budget, in bytes.
    pub budget: u64,
    /// Whether there is memory for an export's quantisation-aware finish, where one was asked for.
    pub finishes: bool,
}

impl Plan {
    /// Bytes that the model takes while it is open and another one runs.
    pub fn idle(&self) -> u64 {
        let weights = if self.holding == Holding::Streamed { 0 } else { self.weights };
        weights + super::BASE / 2
    }

    /// Whether it makes do with less memory than `other` at little loss.
    pub fn is_as_good_as(&self, other: &Self) -> bool {
        self.holding == other.holding && 4 * self.batch_tokens >= 3 * other.batch_tokens
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        let mode = match self.holding {
            Holding::Streamed => "streamed from the file",
            Holding::Stored => "in memory",
            Holding::Floats => "in memory as floats",
            Holding::Nf4 => "in memory in 4 bits (NF4)",
        };
        let (weights, budget) = (gib(self.weights), gib(self.budget));
        write!(
            f,
            "weights {mode} ({weights:.2} GiB), {} tokens a batch, of {budget:.2} GiB",
            self.batch_tokens
        )
    }
}

//! What is in main memory beside a model that runs, a sparse autoencoder say: whoever brings it says
//! how much it takes before the width of the model is known.

use std::iter::Sum;
use std::ops::Add;

/// Bytes that grow with the width of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// Whatever the width.
    pub fixed: u64,
    /// For each value of a row of the stream.
    pub by_width: u64,
}

/// What something takes beside the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// While the model is open.
    pub held: Bytes,
    /// For each token of a batch.
    pub token: Bytes,
}

impl Bytes {
    /// For a stream of that width.
    pub fn at(self, width: u64) -> u64 {
        self.fixed + self.by_width * width
    }

    /// Enough for either.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        Self { fixed: self.fixed.max(other.fixed), by_width: self.by_width.max(other.by_width) }
    }
}

impl Beside {
    /// Nothing.
    pub const NOTHING: Self = {
        let none = Bytes { fixed: 0, by_width: 0 };
        Self { held: none, token: none }
    };

    /// Enough for either of two that are there one after the other.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        Self { held: self.held.most(other.held), token: self.token.most(other.token) }
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { fixed: self.fixed + other.fixed, by_width: self.by_width + other.by_width }
    }
}

impl Add for Beside {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { held: self.held + other.held, token: self.token + other.token }
    }
}

impl Sum for Beside {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::NOTHING, Add::add)
    }
}

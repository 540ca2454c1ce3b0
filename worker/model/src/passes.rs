//! What a model's runs have cost so far, counted where layers run.
//!
//! Methods are compared by *forward-equivalents*: layers run ÷ layers of the model, per prompt.
//! Where prompts share rows or a batch, each counts all the same: what is compared is the method,
//! not the packing.

use crate::layers::frame::Frame;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Layers that went by, one for every sequence that was in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passes {
    /// Layers run. A part of a layer counts as all of it, and one that is run again for its
    /// gradient counts again.
    pub forward: u64,
    /// Layers that [`Transformer::backward`](crate::transformer::Transformer::backward) went
    /// through.
    pub backward: u64,
}

/// The same in passes through the whole model, for one prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PerPrompt {
    /// Forward-equivalents.
    pub forwards: f64,
    /// Backward passes, each worth two forward ones.
    pub backwards: f64,
}

impl Passes {
    /// What has come since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { forward: self.forward - earlier.forward, backward: self.backward - earlier.backward }
    }

    /// Spread over `prompts`, on a model of `layers`; no prompts cost nothing.
    pub fn per_prompt(self, layers: usize, prompts: usize) -> PerPrompt {
        let whole = (layers * prompts).max(1) as f64;
        PerPrompt { forwards: self.forward as f64 / whole, backwards: self.backward as f64 / whole }
    }
}

/// Counts passes; clones of a model share it, and so do threads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    forward: AtomicU64,
    backward: AtomicU64,
}

impl Meter {
    /// A layer has run on the sequences of `frame`.
    pub(crate) fn forward(&self, frame: &Frame) {
        self.0.forward.fetch_add(frame.spans().len() as u64, Ordering::Relaxed);
    }

    /// A layer was differentiated for them.
    pub(crate) fn backward(&self, frame: &Frame) {
        self.0.backward.fetch_add(frame.spans().len() as u64, Ordering::Relaxed);
    }

    /// The counts as they stand.
    pub(crate) fn read(&self) -> Passes {
        let [forward, backward] =
            [&self.0.forward, &self.0.backward].map(|c| c.load(Ordering::Relaxed));
        Passes { forward, backward }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_spread_over_layers_and_prompts() {
        let (before, after) =
            (Passes { forward: 12, backward: 4 }, Passes { forward: 42, backward: 16 });
        let cost = after.since(before).per_prompt(4, 3);
        assert_eq!(cost, PerPrompt { forwards: 2.5, backwards: 1.0 });
        assert_eq!(Passes::default().per_prompt(4, 0), PerPrompt { forwards: 0.0, backwards: 0.0 });
    }
}

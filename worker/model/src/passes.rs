//! What a model's runs have cost so far, counted where layers run.
//!
//! Methods are compared by *forward-equivalents*: layers run ÷ layers of the model, per prompt.
//! Where prompts share rows or a batch, each counts all the same: what is compared is the method,
//! not the packing.

use crate::{ModelError, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    beats: AtomicU64,
    stop: AtomicBool,
}

impl Meter {
    /// Something has moved: a layer has run, or weights were read from their file.
    ///
    /// # Errors
    /// [`ModelError::Stopped`] where a [`Watch`] asked for the end.
    pub(crate) fn beat(&self) -> Result<()> {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
        if self.0.stop.load(Ordering::Relaxed) { Err(ModelError::Stopped) } else { Ok(()) }
    }

    /// A layer has run on so many sequences.
    pub(crate) fn forward(&self, sequences: usize) {
        self.0.forward.fetch_add(sequences as u64, Ordering::Relaxed);
    }

    /// A layer was differentiated for so many.
    pub(crate) fn backward(&self, sequences: usize) {
        self.0.backward.fetch_add(sequences as u64, Ordering::Relaxed);
    }

    /// The counts as they stand.
    pub(crate) fn read(&self) -> Passes {
        let [forward, backward] =
            [&self.0.forward, &self.0.backward].map(|c| c.load(Ordering::Relaxed));
        Passes { forward, backward }
    }
}

/// A model at work, seen from another thread. One batch of a large model takes minutes: what moves
/// meanwhile is known here, and it can be asked to end at its next layer.
#[derive(Debug, Clone)]
pub struct Watch {
    meter: Meter,
    /// The count when the watch began.
    start: u64,
}

impl Watch {
    /// Begins to watch. What was asked to stop before goes on again.
    pub(crate) fn of(meter: &Meter) -> Self {
        meter.0.stop.store(false, Ordering::Relaxed);
        Self { meter: meter.clone(), start: meter.0.beats.load(Ordering::Relaxed) }
    }

    /// Layers run, and weights read from their file, since the watch began.
    pub fn beats(&self) -> u64 {
        self.meter.0.beats.load(Ordering::Relaxed).saturating_sub(self.start)
    }

    /// Asks the work to end at its next layer.
    pub fn stop(&self) {
        self.meter.0.stop.store(true, Ordering::Relaxed);
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

    #[test]
    fn a_watch_counts_from_its_beginning_and_stops_until_the_next_one() {
        let meter = Meter::default();
        meter.beat().unwrap();
        let watch = Watch::of(&meter);
        meter.beat().unwrap();
        assert_eq!(watch.beats(), 1);
        watch.stop();
        assert!(matches!(meter.beat(), Err(ModelError::Stopped)));
        let next = Watch::of(&meter);
        meter.beat().unwrap();
        assert_eq!((watch.beats(), next.beats()), (3, 1));
    }
}

//! The start of a round that all machines have in common, and how the next one is made of what they tell.
//! Equal starts and equal words give equal next starts, to the bit, wherever they are made.

use super::outer::Outer;
use super::{Sharing, sparse};
use crate::learner::Learner;
use crate::losses::Loss;
use crate::{DistillError, Result};
use candle_core::Tensor;

/// What a machine tells of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Where its steps led, start less end, as [`sparse`] writes it.
    pub bytes: Vec<u8>,
    /// Tokens that it learned from: what it weighs.
    pub tokens: u64,
}

/// What a round starts from: B `[out, rank]` of every linear map's adapter, in order.
pub(crate) struct Common {
    /// All of them, one after another.
    values: Vec<f32>,
    outer: Outer,
}

impl Common {
    /// From what is learned, as it begins.
    ///
    /// # Errors
    /// A rate or momentum that is none; those of the tensor library.
    pub fn new(learned: &[Tensor], sharing: &Sharing) -> Result<Self> {
        let values = flat(learned)?;
        let outer = Outer::new(values.len(), sharing.rate, sharing.momentum)?;
        Ok(Self { values, outer })
    }

    /// How many numbers it is.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// As the learner's variables.
    pub(crate) fn tensors<L: Loss>(&self, learner: &Learner<'_, L>) -> Result<Vec<Tensor>> {
        let (mut at, mut tensors) = (0, Vec::new());
        for var in learner.optimiser.vars() {
            let values = self.values.get(at..at + var.elem_count()).unwrap_or_default();
            tensors.push(Tensor::from_slice(values, var.dims2()?, var.device())?);
            at += values.len();
        }
        Ok(tensors)
    }

    /// The start less what is learned now, number by number.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn way_to(&self, learned: &[Tensor]) -> Result<Vec<f32>> {
        let mut way = flat(learned)?;
        for (now, start) in way.iter_mut().zip(&self.values) {
            *now = start - *now;
        }
        Ok(way)
    }

    /// Makes the next start of what the machines tell: the outer optimiser's step along their mean, weighed by
    /// tokens. It is the mean of their products B·A too, for all have the same A. What cannot be read is passed
    /// over, by everybody alike: it costs the share of who told it.
    ///
    /// # Errors
    /// A mean that leads nowhere; the start is then as it was.
    pub fn take(&mut self, told: &[Told]) -> Result<()> {
        let readable: Vec<_> = told.iter().filter_map(|told| self.read(told)).collect();
        let all: f32 = readable.iter().map(|(_, tokens)| tokens).sum();
        let mut mean = vec![0.0; self.values.len()];
        for (entries, tokens) in readable {
            for (place, by) in entries {
                if let Some(sum) = mean.get_mut(place as usize) {
                    *sum += tokens / all * by;
                }
            }
        }
        self.outer.step(&mut self.values, &mean).map_err(DistillError::from)
    }

    /// A machine's words, and what they weigh.
    fn read(&self, Told { bytes, tokens }: &Told) -> Option<(Vec<(u32, f32)>, f32)> {
        if *tokens == 0 {
            return None;
        }
        let entries = sparse::read(bytes, self.values.len());
        let warn = |error: &_| tracing::warn!(%error, "a machine's part of a round is passed over");
        Some((entries.inspect_err(warn).ok()?, *tokens as f32))
    }
}

/// All numbers, one tensor after another.
fn flat(tensors: &[Tensor]) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for tensor in tensors {
        all.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(all)
}

//! Which rows of a batch a trace is about, and whose they are.

use crate::Result;
use candle_core::{Device, Tensor};
use uspx_model::batch::{Batch, Sequence};

/// A part of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The prompt's own tokens.
    Prompt,
    /// The answer's.
    Response,
}

impl Part {
    /// How many tokens of a sequence are of it.
    pub(super) fn tokens(self, sequence: &Sequence) -> u32 {
        let response = sequence.response_len();
        let tokens = match self {
            Self::Prompt => sequence.ids.len() - response,
            Self::Response => response,
        };
        tokens as u32
    }
}

/// The rows of a batch that are of a part.
pub(super) struct Rows {
    /// For each row of the batch its prompt, where it is of the part.
    prompts: Vec<Option<usize>>,
    /// The rows of the part.
    pub(super) here: Vec<u32>,
    /// The same, on the device.
    pub(super) on_device: Tensor,
    /// For each row of the batch its place among those.
    places: Vec<usize>,
    /// For each row of the batch its prompt, one beyond the last where it is not of the part; on the
    /// device.
    pub(super) of_prompt: Tensor,
    /// Tokens that each prompt has of the part.
    pub(super) tokens: Vec<u32>,
}

impl Rows {
    pub(super) fn of(batch: &Batch, part: Part, device: &Device) -> Result<Self> {
        let own = |(sequence, response): &(u32, bool)| {
            (*response == (part == Part::Response)).then_some(*sequence as usize)
        };
        let prompts: Vec<Option<usize>> = batch.place.iter().map(own).collect();
        let each = (0..).zip(&prompts).filter(|(_, prompt)| prompt.is_some());
        let here: Vec<u32> = each.map(|(row, _)| row).collect();
        let mut places = vec![usize::MAX; prompts.len()];
        for (at, row) in here.iter().enumerate() {
            places.get_mut(*row as usize).into_iter().for_each(|place| *place = at);
        }
        let count = batch.lengths.len();
        let of_prompt: Vec<u32> = prompts.iter().map(|p| p.unwrap_or(count) as u32).collect();
        let both = batch.lengths.iter().zip(&batch.responses);
        let tokens = both.map(|(all, response)| match part {
            Part::Prompt => (all - response) as u32,
            Part::Response => *response as u32,
        });
        Ok(Self {
            tokens: tokens.collect(),
            on_device: Tensor::from_slice(&here, here.len(), device)?,
            of_prompt: Tensor::from_vec(of_prompt, prompts.len(), device)?,
            prompts,
            here,
            places,
        })
    }

    /// The prompt that a row belongs to, where it is of the part.
    pub(super) fn prompt(&self, row: usize) -> Option<usize> {
        self.prompts.get(row).copied().flatten()
    }

    /// A row's value of those that the part's rows have.
    pub(super) fn value(&self, row: usize, values: &[f32]) -> Option<f64> {
        values.get(*self.places.get(row)?).copied().map(f64::from)
    }
}

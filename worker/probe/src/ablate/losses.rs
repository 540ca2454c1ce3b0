//! The losses of branches: those of the clean run, but for the rows that came out otherwise.

use crate::Result;
use candle_core::Tensor;
use std::ops::Range;
use uspx_model::batch::Batch;
use uspx_model::loss;
use uspx_model::transformer::Transformer;

/// Losses of a batch, and how far each patch moves them.
pub(super) struct Losses<'a> {
    transformer: &'a Transformer,
    batch: &'a Batch,
    /// By row: the response tokens that it predicts.
    predicted: Vec<Vec<u32>>,
    /// The sequence of each response token.
    sequences: Vec<usize>,
    /// Of the clean run, by response token and by sequence.
    clean: Vec<f32>,
    sums: Vec<f64>,
    /// What each patch adds to a sequence's loss, `[patches][sequences]`.
    moved: Vec<Vec<f64>>,
    open: Open,
    at_once: usize,
}

/// Rows whose losses are still to be computed: an output head that is read from its file is read
/// once for many of them.
#[derive(Default)]
struct Open {
    parts: Vec<Tensor>,
    rows: usize,
    /// Patch and response token of each row.
    owners: Vec<(usize, u32)>,
}

impl<'a> Losses<'a> {
    /// Nothing moved yet, of so many patches. At most `at_once` rows are computed together, or one
    /// stack's.
    pub fn new(
        transformer: &'a Transformer,
        batch: &'a Batch,
        patches: usize,
        at_once: usize,
    ) -> Self {
        let mut predicted = vec![Vec::new(); batch.tokens()];
        for (token, row) in (0..).zip(&batch.predicting) {
            predicted.get_mut(*row as usize).into_iter().for_each(|tokens| tokens.push(token));
        }
        let of = |(sequence, count): (usize, &usize)| std::iter::repeat_n(sequence, *count);
        let sequences = batch.responses.iter().enumerate().flat_map(of).collect();
        let moved = vec![vec![0.0; batch.responses.len()]; patches];
        let (clean, sums, open) = (Vec::new(), Vec::new(), Open::default());
        Self { transformer, batch, predicted, sequences, clean, sums, moved, open, at_once }
    }

    /// The clean run ends with x, `[N, hidden]`.
    pub fn clean(&mut self, x: &Tensor) -> Result<()> {
        if self.sums.is_empty() {
            let values = self.transformer.response_nll(x, self.batch)?;
            self.sums = loss::per_sequence(&values, self.batch)?;
            self.clean = values.to_dtype(candle_core::DType::F32)?.to_vec1()?;
        }
        Ok(())
    }

    /// Branches end with x, `[places, hidden]`; the places of each are these, and of these rows of
    /// the batch.
    pub fn add(
        &mut self,
        x: &Tensor,
        rows: &[u32],
        branches: impl Iterator<Item = (usize, Range<usize>)>,
    ) -> Result<()> {
        let (mut places, mut owners) = (Vec::new(), Vec::new());
        for (patch, range) in branches {
            for place in range {
                let row = rows.get(place).and_then(|row| self.predicted.get(*row as usize));
                for token in row.into_iter().flatten() {
                    places.push(place as u32);
                    owners.push((patch, *token));
                }
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        if self.open.rows + places.len() > self.at_once {
            self.finish()?;
        }
        let ids = Tensor::from_slice(&places, places.len(), x.device())?;
        self.open.parts.push(x.index_select(&ids, 0)?);
        self.open.rows += places.len();
        self.open.owners.extend(owners);
        Ok(())
    }

    /// Computes what is open.
    pub fn finish(&mut self) -> Result<()> {
        let Open { parts, rows, owners } = std::mem::take(&mut self.open);
        if rows == 0 {
            return Ok(());
        }
        let all: Vec<u32> = (0..rows as u32).collect();
        let target = |(_, token): &(usize, u32)| self.batch.targets.get(*token as usize).copied();
        let targets: Vec<u32> = owners.iter().filter_map(target).collect();
        let values = self.transformer.nll(&Tensor::cat(&parts, 0)?, &all, &targets)?;
        let values: Vec<f32> = values.to_dtype(candle_core::DType::F32)?.to_vec1()?;
        for ((patch, token), value) in owners.into_iter().zip(values) {
            let clean = self.clean.get(token as usize).copied().unwrap_or(f32::NAN);
            let sequence = self.sequences.get(token as usize).copied().unwrap_or(usize::MAX);
            let moved = self.moved.get_mut(patch).and_then(|moved| moved.get_mut(sequence));
            moved.into_iter().for_each(|moved| *moved += f64::from(value) - f64::from(clean));
        }
        Ok(())
    }

    /// Summed nats, `[1 + patches][sequences]`: the clean run's first.
    pub fn rows(mut self) -> Result<Vec<Vec<f64>>> {
        self.finish()?;
        let Self { sums, moved, .. } = self;
        let add = |moved: Vec<f64>| sums.iter().zip(moved).map(|(sum, by)| sum + by).collect();
        let patched: Vec<Vec<f64>> = moved.into_iter().map(add).collect();
        Ok(std::iter::once(sums).chain(patched).collect())
    }
}

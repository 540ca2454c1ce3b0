//! Losses over response tokens: negative log-likelihood and KL divergence, prompt by prompt.

use crate::batch::Batch;
use crate::layers::slices::{is_plain, with_values};
use crate::{ModelError, Result};
use candle_core::{D, DType, Tensor};
use rayon::prelude::*;
use uspx_kernel::exp_shifted;

/// Rows of logits worth a thread.
const ROWS: usize = 16;

/// Negative log-likelihood of each target, in nats: `[rows]`, differentiable.
///
/// # Errors
/// Those of the tensor library.
pub fn token_nll(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    if is_plain(logits) && logits.dim(0)? == targets.len() {
        return plain_nll(logits, targets);
    }
    let log_probs = log_softmax(logits)?;
    let ids = Tensor::from_slice(targets, (targets.len(), 1), logits.device())?;
    Ok(log_probs.gather(&ids, 1)?.squeeze(1)?.neg()?)
}

/// The same where nothing is differentiated: in one pass over each row.
fn plain_nll(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let vocab = logits.dim(1)?;
    let one = |scratch: &mut Vec<f32>, (row, target): (&[f32], &u32)| -> Result<f32> {
        let outside = || ModelError::Request(format!("token {target} is beyond the vocabulary"));
        let own = row.get(*target as usize).ok_or_else(outside)?;
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scratch.clear();
        scratch.extend_from_slice(row);
        let sum = exp_shifted(scratch, largest);
        Ok(largest - own + sum.ln())
    };
    let rows = |values: &[f32]| -> Result<Vec<f32>> {
        let rows = values.par_chunks_exact(vocab.max(1)).zip(targets).with_min_len(ROWS);
        rows.map_init(Vec::new, one).collect()
    };
    let values = with_values(logits, rows)??;
    Ok(Tensor::from_vec(values, targets.len(), logits.device())?)
}

/// Log-probabilities over the last dimension, in f32 at least.
///
/// # Errors
/// Those of the tensor library.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let logits =
        if logits.dtype() == DType::F64 { logits.clone() } else { logits.to_dtype(DType::F32)? };
    Ok(candle_nn::ops::log_softmax(&logits, D::Minus1)?)
}

/// KL(full ‖ other) of each row, in nats, from log-probabilities: `[rows]`.
///
/// # Errors
/// Those of the tensor library.
pub fn token_kl(full: &Tensor, other: &Tensor) -> Result<Tensor> {
    Ok((full.exp()? * (full - other)?)?.sum(D::Minus1)?)
}

/// Sums values of the batch's predicting rows into one f64 per sequence.
///
/// # Errors
/// Those of the tensor library.
pub fn per_sequence(values: &Tensor, batch: &Batch) -> Result<Vec<f64>> {
    let values: Vec<f32> = values.to_dtype(DType::F32)?.to_vec1()?;
    let mut rest = values.as_slice();
    let mut sums = Vec::with_capacity(batch.responses.len());
    for &count in &batch.responses {
        let (own, others) = rest.split_at(count.min(rest.len()));
        sums.push(own.iter().copied().map(f64::from).sum());
        rest = others;
    }
    Ok(sums)
}

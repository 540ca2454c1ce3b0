//! Losses over response tokens: negative log-likelihood and KL divergence, prompt by prompt.

use crate::Result;
use crate::batch::Batch;
use candle_core::{D, DType, Tensor};

/// Negative log-likelihood of each target, in nats: `[rows]`, differentiable.
///
/// # Errors
/// Those of the tensor library.
pub fn token_nll(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let log_probs = log_softmax(logits)?;
    let ids = Tensor::from_slice(targets, (targets.len(), 1), logits.device())?;
    Ok(log_probs.gather(&ids, 1)?.squeeze(1)?.neg()?)
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

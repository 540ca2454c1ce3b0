//! Losses that are told by what they ask of single tokens.
//!
//! A loss that depends on a row of logits only through the log-probabilities of some of its tokens
//! v pulls each of them by m(v) = −∂L/∂ln p(v). Its gradient with respect to the logits is then
//! p·Σm − m: one softmax, and nothing else as large as the logits is kept.

use crate::Result;
use candle_core::{D, DType, Device, Shape, Tensor};
use uspx_model::custom_gradient::with_gradient;

/// The rows' log-probabilities of some tokens, and what a loss asks of them.
pub(super) struct Pulls {
    /// The logits, without a gradient, as floats.
    logits: Tensor,
    /// What makes logits log-probabilities, for each row.
    normalisers: Vec<f64>,
    /// For each row: tokens, and how much they are pulled.
    rows: Vec<Vec<(u32, f64)>>,
    /// The loss so far.
    value: f64,
}

/// f32, or f64 where the logits are.
fn floats(logits: &Tensor) -> Result<Tensor> {
    let dtype = if logits.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(logits.to_dtype(dtype)?)
}

/// The values of a matrix. Not every device has doubles.
fn host(values: &Tensor) -> Result<Vec<Vec<f64>>> {
    let values = values.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(values.to_vec2()?)
}

impl Pulls {
    /// Nothing is asked of `logits` `[rows, vocab]` yet.
    pub fn new(logits: &Tensor) -> Result<Self> {
        let logits = floats(logits)?.detach();
        let normalisers = logits.log_sum_exp(D::Minus1)?.unsqueeze(1)?;
        let normalisers = host(&normalisers)?.into_iter().flatten().collect();
        let rows = vec![Vec::new(); logits.dim(0)?];
        Ok(Self { logits, normalisers, rows, value: 0.0 })
    }

    /// Log-probabilities of the tokens that are named for each row, in nats.
    pub fn log_probs(&self, tokens: &[Vec<u32>]) -> Result<Vec<Vec<f64>>> {
        let width = tokens.iter().map(Vec::len).max().unwrap_or(0);
        if width == 0 {
            return Ok(vec![Vec::new(); tokens.len()]);
        }
        let padded = tokens
            .iter()
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0, width - row.len())));
        let ids = padded.collect::<Vec<u32>>();
        let ids = Tensor::from_vec(ids, (tokens.len(), width), self.logits.device())?;
        let picked = host(&self.logits.gather(&ids, 1)?)?;
        let each = picked.into_iter().zip(tokens).zip(&self.normalisers);
        Ok(each
            .map(|((picked, row), norm)| picked.iter().take(row.len()).map(|x| x - norm).collect())
            .collect())
    }

    /// Of the tokens `of`, the likeliest in some rows, each with how many are wanted: token and
    /// log-probability in nats, likeliest first (of equals, the lower token).
    pub fn likeliest(&self, of: &[u32], counts: &[(usize, usize)]) -> Result<Vec<Vec<(u32, f64)>>> {
        if of.is_empty() {
            return Ok(vec![Vec::new(); counts.len()]);
        }
        let device = self.logits.device();
        let ids = Tensor::from_slice(of, of.len(), device)?;
        let mut found = Vec::with_capacity(counts.len());
        for part in counts.chunks(SLAB) {
            let rows: Vec<u32> = part.iter().map(|(row, _)| *row as u32).collect();
            let rows = Tensor::from_vec(rows, part.len(), device)?;
            let some = self.logits.index_select(&rows, 0)?.index_select(&ids, 1)?;
            for (logits, (row, count)) in host(&some)?.into_iter().zip(part) {
                let norm = self.normalisers.get(*row).copied().unwrap_or_default();
                let all = of.iter().copied().zip(logits.into_iter().map(|x| x - norm)).collect();
                found.push(largest(all, *count));
            }
        }
        Ok(found)
    }

    /// Log-probabilities of one token for each row, in nats.
    pub fn own(&self, hard: &[u32]) -> Result<Vec<f64>> {
        let tokens: Vec<Vec<u32>> = hard.iter().map(|token| vec![*token]).collect();
        Ok(self.log_probs(&tokens)?.into_iter().flatten().collect())
    }

    /// Adds cross-entropy against one token for each row, of which `own` are the log-probabilities,
    /// each with its weight.
    pub fn add_texts(&mut self, hard: &[u32], own: &[f64], weights: &[f64]) {
        for (row, ((token, log_prob), weight)) in hard.iter().zip(own).zip(weights).enumerate() {
            self.value -= weight * log_prob;
            self.pull(row, *token, *weight);
        }
    }

    /// Adds to the loss what has been worked out, in nats; its pulls are told one by one.
    pub fn add(&mut self, nats: f64) {
        self.value += nats;
    }

    /// Pulls a token by −∂L/∂ln p.
    pub fn pull(&mut self, row: usize, token: u32, mass: f64) {
        if let Some(row) = self.rows.get_mut(row) {
            row.push((token, mass));
        }
    }

    /// The loss, a scalar, with its gradient by `logits`, the ones that it was made of.
    pub fn loss(self, logits: &Tensor) -> Result<Tensor> {
        let logits = floats(logits)?;
        let (dtype, device) = (logits.dtype(), logits.device());
        let width = self.rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let padded = self.rows.iter().flat_map(|row| {
            row.iter().copied().chain(std::iter::repeat_n((0, 0.0), width - row.len()))
        });
        let (ids, masses): (Vec<u32>, Vec<f64>) = padded.unzip();
        let shape = (self.rows.len(), width);
        let ids = Tensor::from_vec(ids, shape, device)?;
        let totals: Vec<f64> =
            self.rows.iter().map(|row| row.iter().map(|(_, m)| m).sum()).collect();
        let there = |values, shape: Shape| -> Result<Tensor> {
            let here = Tensor::from_vec(values, shape, &Device::Cpu)?;
            Ok(here.to_dtype(dtype)?.to_device(device)?)
        };
        let totals = there(totals, (shape.0, 1).into())?;
        let against = there(masses, shape.into())?.neg()?;
        let value = there(vec![self.value], ().into())?;
        Ok(with_gradient("pulled-tokens", &logits, value, move |x, _, grad| {
            let p = candle_nn::ops::softmax_last_dim(&x.contiguous()?)?.broadcast_mul(&totals)?;
            p.scatter_add(&ids, &against, D::Minus1)?.broadcast_mul(grad)
        })?)
    }
}

/// Rows whose logits are looked at together on the host.
const SLAB: usize = 64;

fn largest(mut all: Vec<(u32, f64)>, count: usize) -> Vec<(u32, f64)> {
    let rank = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < all.len() {
        all.select_nth_unstable_by(count, rank);
        all.truncate(count);
    }
    all.sort_by(rank);
    all
}

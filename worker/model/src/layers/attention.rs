//! Grouped-query attention with a sliding window, learned sinks and a key-value cache.
//!
//! Tokens come ragged, `[N, hidden]`; they are padded to `[B, T]` for the products only, by the batch's [`Frame`].

use crate::batch::Frame;
use crate::layers::linear::Linear;
use crate::link::link;
use crate::taps::{Projection, Site, Taps, tap};
use crate::{ModelError, Result};
use candle_core::{D, Tensor};

/// One layer's attention.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Query projection.
    pub q: Linear,
    /// Key projection.
    pub k: Linear,
    /// Value projection.
    pub v: Linear,
    /// Output projection.
    pub o: Linear,
    /// One logit per head that joins the softmax and is dropped after it, `[heads]`.
    pub sinks: Option<Tensor>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Sliding window, in tokens.
    pub window: Option<usize>,
}

/// Keys and values of the tokens seen so far, each `[kv_heads, B, T, head_dim]`.
pub type LayerCache = Option<(Tensor, Tensor)>;

impl Attention {
    /// The attention's contribution to the residual stream, `[N, hidden]`, from the normalised stream.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn forward(
        &self,
        layer: usize,
        x: &Tensor,
        frame: &Frame,
        cache: Option<&mut LayerCache>,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let x = tap(taps, Site::LinearInput { layer, projection: Projection::Q }, x.clone())?;
        let q = frame.angles().rotate(&self.split(&self.q.forward(&x)?, self.heads)?)?;
        let k = frame.angles().rotate(&self.split(&self.k.forward(&x)?, self.kv_heads)?)?;
        let v = self.split(&self.v.forward(&x)?, self.kv_heads)?;
        let (q, mut k, mut v) = (frame.pad(&q)?, frame.pad(&k)?, frame.pad(&v)?);
        if let Some(cache) = cache {
            if let Some((old_k, old_v)) = cache.take() {
                k = Tensor::cat(&[&old_k, &k], 2)?;
                v = Tensor::cat(&[&old_v, &v], 2)?;
            }
            *cache = Some((k.clone(), v.clone()));
        }
        let weights = tap(taps, Site::Attention { layer }, self.weights(&q, &k, frame)?)?;
        let mixed = weights.matmul(&self.spread(&v)?)?;
        let heads = frame.unpad(&mixed)?.transpose(0, 1)?.contiguous()?;
        let heads = tap(taps, Site::Heads { layer }, heads)?;
        let flat = heads.reshape(((), self.heads * self.head_dim))?;
        let flat = tap(taps, Site::LinearInput { layer, projection: Projection::O }, flat)?;
        self.o.forward(&flat)
    }

    /// `[N, heads · d]` to `[heads, N, d]`.
    fn split(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        Ok(x.reshape(((), heads, self.head_dim))?.transpose(0, 1)?.contiguous()?)
    }

    /// Every query head beside the KV head it shares: `[kv, B, T, d]` to `[heads, B, T, d]`.
    fn spread(&self, x: &Tensor) -> Result<Tensor> {
        let group = self.heads / self.kv_heads;
        if group == 1 {
            return Ok(x.clone());
        }
        let (kv, b, t, d) = x.dims4()?;
        Ok(x.unsqueeze(1)?.expand((kv, group, b, t, d))?.contiguous()?.reshape((self.heads, b, t, d))?)
    }

    /// Attention probabilities, `[heads, B, T, keys]`.
    fn weights(&self, q: &Tensor, k: &Tensor, frame: &Frame) -> Result<Tensor> {
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        let scores = ((q * scale)?.matmul(&self.spread(k)?.transpose(2, 3)?.contiguous()?))?;
        let scores = scores.broadcast_add(frame.bias(self.window)?)?;
        let Some(sinks) = &self.sinks else { return softmax(&scores) };
        let (heads, b, t, keys) = scores.dims4()?;
        if sinks.dims() != [heads] {
            return Err(ModelError::Request(format!("{heads} heads, but sinks of shape {:?}", sinks.dims())));
        }
        let sinks = sinks.reshape((heads, 1, 1, 1))?.broadcast_as((heads, b, t, 1))?.contiguous()?;
        let joined = softmax(&Tensor::cat(&[&scores, &sinks], D::Minus1)?)?;
        Ok(joined.narrow(D::Minus1, 0, keys)?.contiguous()?)
    }
}

/// Softmax over the last dimension, fused and differentiable.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let y = candle_nn::ops::softmax_last_dim(&x.detach().contiguous()?)?;
    Ok(link("softmax", x, y, |_, y, grad| {
        let weighted = (grad * y)?;
        let along = weighted.sum_keepdim(D::Minus1)?;
        weighted - y.broadcast_mul(&along)?
    })?)
}

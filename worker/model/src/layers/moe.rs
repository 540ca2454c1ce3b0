//! Mixture of experts: a router picks a few experts per token; each expert multiplies all of its tokens at once.

use crate::layers::linear::{Linear, frozen_matmul};
use crate::taps::{Routing, Site, Taps, tap};
use crate::{ModelError, Result};
use candle_core::{D, Device, Tensor};

/// One layer's experts.
#[derive(Debug, Clone)]
pub struct Experts {
    /// Router, `[experts, hidden]` with bias.
    pub router: Linear,
    /// Gate rows of every expert, `[inner, hidden]` and `[inner]`.
    pub gate: Vec<(Tensor, Tensor)>,
    /// Up rows of every expert, likewise.
    pub up: Vec<(Tensor, Tensor)>,
    /// Down rows of every expert, `[hidden, inner]` and `[hidden]`.
    pub down: Vec<(Tensor, Tensor)>,
    /// Experts per token.
    pub top_k: usize,
    /// Clamp of the gated unit.
    pub limit: f64,
}

/// gpt-oss's sigmoid slope.
const SLOPE: f64 = 1.702;

/// Tokens in expert order, and the way back.
struct Grouping {
    /// For each slot in expert order: its token.
    tokens: Tensor,
    /// For each (token, choice): its place in expert order.
    back: Tensor,
    /// Slots of each expert.
    counts: Vec<usize>,
}

impl Experts {
    /// `[N, hidden]` to `[N, hidden]`.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn forward(&self, layer: usize, x: &Tensor, taps: &mut dyn Taps) -> Result<Tensor> {
        let (n, hidden) = x.dims2()?;
        let logits = tap(taps, Site::Router { layer }, self.router.forward(x)?)?;
        let routing = self.route(&logits)?;
        let grouping = group(&routing, self.gate.len(), x.device())?;
        let outputs = self.run(x, &grouping)?.index_select(&grouping.back, 0)?;
        let outputs = outputs.reshape((n, self.top_k, hidden))?;
        let outputs = tap(taps, Site::Experts { layer, routing: &routing }, outputs)?;
        let weighted = outputs.broadcast_mul(&routing.gates.unsqueeze(2)?)?;
        Ok(weighted.sum(1)?)
    }

    /// The `top_k` largest logits of each token, and the softmax over them.
    ///
    /// # Errors
    /// A logit that is not a number; those of the tensor library.
    pub fn route(&self, logits: &Tensor) -> Result<Routing> {
        let (n, experts) = logits.dims2()?;
        let values: Vec<f32> = logits.detach().to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
        if values.iter().any(|v| v.is_nan()) {
            return Err(ModelError::Request("a router logit is not a number: the model or its input is broken".into()));
        }
        let chosen: Vec<u32> = values.chunks_exact(experts).flat_map(|row| top(row, self.top_k)).collect();
        let ids = Tensor::from_slice(&chosen, (n, self.top_k), logits.device())?;
        let picked = logits.contiguous()?.gather(&ids, 1)?;
        let gates = candle_nn::ops::softmax(&picked, D::Minus1)?;
        Ok(Routing { chosen, gates, top_k: self.top_k })
    }

    /// Every expert on its tokens, rows in expert order.
    fn run(&self, x: &Tensor, grouping: &Grouping) -> Result<Tensor> {
        let sorted = x.index_select(&grouping.tokens, 0)?;
        let mut outputs = Vec::with_capacity(grouping.counts.len());
        let mut start = 0;
        for ((gate, up), (down, &count)) in self.gate.iter().zip(&self.up).zip(self.down.iter().zip(&grouping.counts)) {
            if count > 0 {
                let rows = sorted.narrow(0, start, count)?;
                outputs.push(self.expert(&rows, gate, up, down)?);
                start += count;
            }
        }
        Ok(Tensor::cat(&outputs, 0)?)
    }

    /// (up + 1) · gate · σ(1.702 · gate), gate clamped from above, up from both sides.
    fn expert(&self, x: &Tensor, gate: &Affine, up: &Affine, down: &Affine) -> Result<Tensor> {
        let gate = affine(x, gate)?.minimum(self.limit)?;
        let up = affine(x, up)?.clamp(-self.limit, self.limit)?;
        let swish = (&gate * candle_nn::ops::sigmoid(&(&gate * SLOPE)?)?)?;
        affine(&((up + 1.0)? * swish)?, down)
    }
}

type Affine = (Tensor, Tensor);

fn affine(x: &Tensor, (weight, bias): &Affine) -> Result<Tensor> {
    Ok(frozen_matmul(x, weight)?.broadcast_add(bias)?)
}

/// The indices of the `k` largest of `row`, largest first; of equals, the first one.
fn top(row: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<(f32, u32)> = row.iter().copied().zip(0..).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.into_iter().take(k).map(|(_, i)| i).collect()
}

/// Sorts the slots by expert (a counting sort).
fn group(routing: &Routing, experts: usize, device: &Device) -> Result<Grouping> {
    let mut slots: Vec<Vec<u32>> = vec![Vec::new(); experts];
    for (slot, &expert) in routing.chosen.iter().enumerate() {
        let list = slots.get_mut(expert as usize);
        list.ok_or_else(|| ModelError::Request(format!("expert {expert} does not exist")))?.push(slot as u32);
    }
    let counts = slots.iter().map(Vec::len).collect();
    let order: Vec<u32> = slots.into_iter().flatten().collect();
    let mut place: Vec<(u32, u32)> = order.iter().copied().zip(0..).collect();
    place.sort_unstable();
    let back: Vec<u32> = place.into_iter().map(|(_, at)| at).collect();
    let tokens: Vec<u32> = order.iter().map(|slot| slot / routing.top_k as u32).collect();
    let total = order.len();
    Ok(Grouping {
        tokens: Tensor::from_vec(tokens, total, device)?,
        back: Tensor::from_vec(back, total, device)?,
        counts,
    })
}

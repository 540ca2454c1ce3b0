//! Mixture of experts: a router picks a few experts per token; each expert multiplies all of its
//! tokens at once.

use crate::Result;
use crate::config::{GatedUnit, Mixture};
use crate::error::ModelError;
use crate::layers::gated::{clamped_unit, swiglu};
use crate::layers::linear::Linear;
use crate::layers::relevance::given;
use crate::layers::rows::{pick, sum_slots, weighted};
use crate::layers::slices::{is_plain, with_values};
use crate::taps::{AtExpert, Backward, Routing, Site, Taps, tap};
use candle_core::{D, DType, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;
use std::fmt::Debug;

/// One expert's linear maps.
#[derive(Debug, Clone)]
pub struct Expert {
    /// Into the hidden channels.
    pub first: FirstMaps,
    /// Back to the residual stream.
    pub down: Linear,
}

/// The gate and up maps of an expert.
#[derive(Debug, Clone)]
pub enum FirstMaps {
    /// One map whose rows are gate and up interleaved (gpt-oss).
    InTurns(Linear),
    /// One map, all gate rows before all up rows.
    Halves(Linear),
    /// Two maps.
    Apart {
        /// Gate.
        gate: Linear,
        /// Up.
        up: Linear,
    },
}

/// Where a layer's experts come from: memory, or their file, one at a time.
pub trait ExpertSource: Debug + Send + Sync {
    /// An expert of the layer.
    ///
    /// # Errors
    /// One that does not exist or cannot be read.
    fn expert(&self, index: usize) -> Result<Cow<'_, Expert>>;
}

impl ExpertSource for Vec<Expert> {
    fn expert(&self, index: usize) -> Result<Cow<'_, Expert>> {
        self.get(index).map(Cow::Borrowed).ok_or_else(|| no_expert(index as u32))
    }
}

/// Rows of logits worth a thread.
const ROWS: usize = 512;

fn no_expert(index: u32) -> ModelError {
    ModelError::Request(format!("expert {index} does not exist"))
}

/// One layer's experts.
#[derive(Debug)]
pub struct Experts {
    /// Router, `[experts, hidden]`.
    pub router: Linear,
    /// The experts.
    pub source: Box<dyn ExpertSource>,
    /// How they are chosen and what they compute.
    pub mixture: Mixture,
}

impl Experts {
    /// `[N, hidden]` to `[N, hidden]`.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn forward(&self, layer: usize, x: &Tensor, taps: &mut dyn Taps) -> Result<Tensor> {
        let logits = self.router.forward(&given(x, taps.backward()))?;
        let logits = tap(taps, Site::Router { layer }, logits)?;
        let ranked = self.ranked(&logits, taps.wants_next())?;
        let routing = self.route(&logits, &ranked)?;
        let groups = slots_by_expert(&routing, self.mixture.experts)?;
        let next = self.next(&ranked)?;
        let mut sum = WeightedSum::new(x, &routing)?;
        // All experts' tokens at once: to a GPU it is one way, not one for each.
        let tokens: Vec<u32> =
            groups.iter().flatten().map(|slot| slot / routing.top_k as u32).collect();
        let all = Tensor::from_slice(&tokens, tokens.len(), x.device())?;
        let mut start = 0;
        for (index, slots) in groups.iter().enumerate() {
            let others = next.get(index).map(Vec::as_slice).unwrap_or_default();
            if slots.is_empty() && others.is_empty() {
                continue;
            }
            let expert = self.source.expert(index)?;
            if !slots.is_empty() {
                let at = AtExpert { layer, expert: index as u32, slots, routing: &routing };
                let own = tokens.get(start..start + slots.len()).unwrap_or_default();
                let x = pick(x, own, &all.narrow(0, start, slots.len())?)?;
                sum.add(slots, expert.forward(x, at, self.mixture.unit, taps)?)?;
                start += slots.len();
            }
            if !others.is_empty() {
                let ids = Tensor::from_slice(others, others.len(), x.device())?;
                let out = expert.plain(&pick(&x.detach(), others, &ids)?, self.mixture.unit)?;
                let at = Site::NextOut { layer, expert: index as u32, tokens: others };
                taps.at(at, &out)?;
            }
        }
        sum.finish()
    }

    /// For each expert the tokens that it is the first not chosen by, where it was ranked.
    fn next(&self, ranked: &Ranked) -> Result<Vec<Vec<u32>>> {
        let mut tokens = vec![Vec::new(); self.mixture.experts];
        for (token, experts) in (0..).zip(ranked.rows()) {
            let Some(next) = experts.get(self.mixture.top_k) else { continue };
            tokens.get_mut(*next as usize).ok_or_else(|| no_expert(*next))?.push(token);
        }
        Ok(tokens)
    }

    /// The `top_k` first of each token, and their weights.
    fn route(&self, logits: &Tensor, ranked: &Ranked) -> Result<Routing> {
        let (n, top_k) = (logits.dim(0)?, self.mixture.top_k);
        let chosen: Vec<u32> =
            ranked.rows().flat_map(|row| row.iter().take(top_k)).copied().collect();
        let ids = Tensor::from_slice(&chosen, (n, top_k), logits.device())?;
        let gates = if self.mixture.renormalise {
            candle_nn::ops::softmax(&logits.contiguous()?.gather(&ids, 1)?, D::Minus1)?
        } else {
            candle_nn::ops::softmax(logits, D::Minus1)?.contiguous()?.gather(&ids, 1)?
        };
        Ok(Routing { chosen, gates, top_k })
    }

    /// The experts of each token's `top_k` largest logits, largest first; with the `next` one, if
    /// there is one.
    fn ranked(&self, logits: &Tensor, next: bool) -> Result<Ranked> {
        let (n, experts) = logits.dims2()?;
        let count = (self.mixture.top_k + usize::from(next)).min(experts);
        let values: Vec<f32> = logits.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        if values.iter().any(|v| v.is_nan()) {
            return Err(ModelError::Request(
                "a router logit is not a number: the model or its input is broken".into(),
            ));
        }
        // The GPU waits for this.
        let mut all = vec![0; n * count];
        let rows = values.par_chunks_exact(experts).zip(all.par_chunks_exact_mut(count.max(1)));
        rows.with_min_len(ROWS).for_each_init(Vec::new, |best, (row, ranked)| {
            top(row, count, best);
            for (place, (_, expert)) in ranked.iter_mut().zip(best.iter()) {
                *place = *expert;
            }
        });
        Ok(Ranked { all, count })
    }
}

/// The experts that each token wants most.
struct Ranked {
    /// `[N × count]`, most wanted first.
    all: Vec<u32>,
    /// Of each token.
    count: usize,
}

impl Ranked {
    /// Token by token.
    fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.all.chunks_exact(self.count.max(1))
    }
}

impl Expert {
    /// The expert on its own tokens, `[S, hidden]` to `[S, hidden]`.
    fn forward(
        &self,
        x: Tensor,
        at: AtExpert<'_>,
        unit: GatedUnit,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let own = tap(taps, Site::ExpertIn(at), x)?;
        let channels = self.channels(&own, unit, taps.backward())?;
        let channels = tap(taps, Site::ExpertChannels(at), channels)?;
        tap(taps, Site::ExpertOut(at), self.down.forward(&channels)?)
    }

    /// The same without taps.
    fn plain(&self, x: &Tensor, unit: GatedUnit) -> Result<Tensor> {
        self.down.forward(&self.channels(x, unit, Backward::Gradient)?)
    }

    fn channels(&self, x: &Tensor, unit: GatedUnit, back: Backward) -> Result<Tensor> {
        match (&self.first, unit) {
            (FirstMaps::InTurns(map), GatedUnit::Clamped { alpha, limit }) => {
                clamped_unit(&map.forward(x)?, (alpha, limit), back)
            }
            (FirstMaps::Apart { gate, up }, GatedUnit::Silu) => {
                swiglu(&gate.forward(x)?, &up.forward(x)?, back)
            }
            (FirstMaps::Halves(map), GatedUnit::Silu) => {
                let both = map.forward(x)?;
                let inner = both.dim(1)? / 2;
                swiglu(
                    &both.narrow(1, 0, inner)?.contiguous()?,
                    &both.narrow(1, inner, inner)?.contiguous()?,
                    back,
                )
            }
            _ => Err(ModelError::Config(
                "these experts' maps do not go with their activation".into(),
            )),
        }
    }
}

/// The `k` largest of `row`, largest first; of equals, the first one.
fn top(row: &[f32], k: usize, best: &mut Vec<(f32, u32)>) {
    best.clear();
    for (&value, expert) in row.iter().zip(0..) {
        let is_larger = |last: &(f32, u32)| value.total_cmp(&last.0).is_gt();
        if best.len() == k && !best.last().is_some_and(is_larger) {
            continue;
        }
        best.truncate(k.saturating_sub(1));
        let place = best.partition_point(|other| !is_larger(other));
        best.insert(place, (value, expert));
    }
}

/// The slots of each expert, in the tokens' order.
fn slots_by_expert(routing: &Routing, experts: usize) -> Result<Vec<Vec<u32>>> {
    let mut slots: Vec<Vec<u32>> = vec![Vec::new(); experts];
    for (slot, &expert) in routing.chosen.iter().enumerate() {
        slots.get_mut(expert as usize).ok_or_else(|| no_expert(expert))?.push(slot as u32);
    }
    Ok(slots)
}

/// Σ gate · output over a token's experts, gathered expert by expert.
///
/// What nothing is differentiated through is added up at once and not kept; the rest is kept until
/// all are there.
struct WeightedSum<'a> {
    x: &'a Tensor,
    routing: &'a Routing,
    /// The gates' values and the sum so far, `[N × hidden]`, once something was added.
    gates: Option<Vec<f32>>,
    sum: Vec<f32>,
    /// Outputs in expert order, and their slots.
    kept: Vec<Tensor>,
    order: Vec<u32>,
}

impl<'a> WeightedSum<'a> {
    fn new(x: &'a Tensor, routing: &'a Routing) -> Result<Self> {
        let gates = is_plain(&routing.gates).then(|| routing.gates.flatten_all()?.to_vec1());
        Ok(Self {
            x,
            routing,
            gates: gates.transpose()?,
            sum: Vec::new(),
            kept: Vec::new(),
            order: Vec::new(),
        })
    }

    fn add(&mut self, slots: &[u32], out: Tensor) -> Result<()> {
        let Some(gates) = self.gates.as_ref().filter(|_| is_plain(&out)) else {
            self.order.extend(slots);
            self.kept.push(out);
            return Ok(());
        };
        let (n, width) = self.x.dims2()?;
        self.sum.resize(n * width, 0.0);
        with_values(&out, |out| {
            for (slot, row) in slots.iter().zip(out.chunks_exact(width)) {
                let token = *slot as usize / self.routing.top_k;
                let gate = gates.get(*slot as usize).copied().unwrap_or(f32::NAN);
                let into = self.sum.get_mut(token * width..(token + 1) * width).unwrap_or_default();
                for (into, value) in into.iter_mut().zip(row) {
                    *into += gate * value;
                }
            }
        })?;
        Ok(())
    }

    fn finish(self) -> Result<Tensor> {
        let shape = self.x.dims2()?;
        if self.kept.is_empty() {
            let sum = if self.sum.is_empty() { vec![0.0; shape.0 * shape.1] } else { self.sum };
            return Ok(Tensor::from_vec(sum, shape, self.x.device())?);
        }
        let (top_k, kept) = (self.routing.top_k, Tensor::cat(&self.kept, 0)?);
        if self.order.len() == shape.0 * top_k {
            return sum_slots(&kept, &self.routing.gates.to_dtype(kept.dtype())?, &self.order);
        }
        // Only some experts are differentiated: the others have been added up.
        let weighted = weighted(&kept, &self.routing.gates, &self.order)?;
        let tokens: Vec<u32> = self.order.iter().map(|slot| slot / top_k as u32).collect();
        let tokens = Tensor::from_vec(tokens, self.order.len(), self.x.device())?;
        let sum = Tensor::from_vec(self.sum, shape, self.x.device())?;
        Ok(sum.index_add(&tokens, &weighted, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_of_equals_the_earlier() {
        let row = [1.0, 3.0, -2.0, 3.0, 0.5, 2.0];
        let mut best = Vec::new();
        let mut ids = |k| -> Vec<u32> {
            top(&row, k, &mut best);
            best.iter().map(|(_, id)| *id).collect()
        };
        assert_eq!(ids(1), [1]);
        assert_eq!(ids(3), [1, 3, 5]);
        assert_eq!(ids(6), [1, 3, 5, 0, 4, 2]);
    }
}

//! Attribution patching (Nanda 2023; Syed et al. 2023): all units' first-order effects from one
//! forward and backward.
//!
//! A unit's output n is replaced by n + δ·(baseline − n) with δ = 0 at every token; the loss's
//! gradient with respect to δ is (baseline − n)·∂L/∂n, token by token.

use super::{Measure, ProbeRequest};
use crate::Result;
use crate::batching::each_batch;
use crate::means::{Means, means};
use crate::sums::UnitSums;
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Tensor, Var};
use uspx_domain::{Baseline, Deposit, Estimator, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::custom_gradients::with_two_gradients;
use uspx_model::taps::{Site, Taps};
use uspx_model::{ModelError, Progress, Spool};

/// First-order effects, signed and made positive per token, in nats summed over all positions of a
/// prompt.
pub(super) struct AttributionPatching;

impl Measure for AttributionPatching {
    fn estimator(&self) -> Estimator {
        Estimator::ATP
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        let sequences = &request.prompts.sequences;
        let means = match request.baseline {
            Baseline::Zero => None,
            Baseline::Mean => Some(means(request.model, sequences, request.batch_tokens)?),
        };
        let mut effects = Effects::new(request);
        let (mut done, total) = (0, sequences.len() as u64);
        let mut each = |members: &[usize], batch: &Batch| {
            let found =
                differentiate(request, means.as_ref(), batch, effects.blank(members.len()))?;
            effects.take(&found, members);
            done += members.len() as u64;
            progress.report(done, total)
        };
        each_batch(sequences, request.batch_tokens, Batch::new, &mut each)?;
        let mut deposit = request.deposit();
        effects.0.iter().for_each(|(_, sums)| sums.tell(&request.tokens(), &mut deposit));
        Ok(deposit)
    }
}

/// A batch's effects: forward, keeping every layer's input, then backward layer by layer.
fn differentiate(
    request: &ProbeRequest<'_>,
    means: Option<&Means>,
    batch: &Batch,
    mut found: Effects,
) -> Result<Effects> {
    let transformer = &request.model.transformer;
    let frame = transformer.frame(batch)?;
    let mut boundaries: Spool = transformer.spool();
    let mut keep = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        if let Site::ResidPre { .. } = site {
            boundaries.push(value)?;
        }
        Ok(None)
    };
    let x = transformer.forward(batch, &frame, &mut keep)?;
    transformer.backward(
        (&x, &frame, &boundaries),
        |x| Ok(transformer.response_nll(x, batch)?.sum_all()?),
        |_| GradientTaps { means, kinds: request.kinds, handles: Vec::new() },
        |taps, gradients| found.add_all(&taps.handles, gradients, batch),
    )?;
    Ok(found)
}

/// How far some of a layer's units are moved towards their baselines.
struct Handle {
    kind: UnitKind,
    layer: usize,
    /// Row of the batch and unit of each value of `moved`.
    places: Vec<(u32, u32)>,
    moved: Var,
}

struct GradientTaps<'a> {
    means: Option<&'a Means>,
    kinds: &'a [UnitKind],
    handles: Vec<Handle>,
}

impl GradientTaps<'_> {
    /// value + δ·(base − value) at δ = 0; `value` is `[.., width]`, `base` broadcasts to it, and
    /// without one it is zero.
    fn hook(
        &mut self,
        (kind, layer): (UnitKind, usize),
        places: Vec<(u32, u32)>,
        value: &Tensor,
        base: Option<Tensor>,
    ) -> Result<Tensor> {
        let mut dims = value.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = 1;
        }
        let moved = Var::zeros(dims.as_slice(), value.dtype(), value.device())?;
        let plain = value.detach();
        let way = move |grad: &Tensor| -> candle_core::Result<Tensor> {
            let away = match &base {
                Some(base) => (grad * plain.broadcast_sub(base)?)?,
                None => (grad * &plain)?,
            };
            away.sum_keepdim(D::Minus1)?.neg()
        };
        let inputs = [value, moved.as_tensor()];
        let patched =
            with_two_gradients("towards-baseline", inputs, value.detach(), move |grad| {
                Ok((grad.clone(), way(grad)?))
            })?;
        self.handles.push(Handle { kind, layer, places, moved });
        Ok(patched)
    }
}

fn layer_mean(list: &[Tensor], layer: usize) -> Result<&Tensor> {
    list.get(layer).ok_or_else(|| ModelError::Request(format!("no mean output for layer {layer}")))
}

impl Taps for GradientTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::ExpertOut(at) if self.kinds.contains(&UnitKind::Expert) => {
                let base = self.means.map(|m| {
                    layer_mean(&m.experts, at.layer)?
                        .get(at.expert as usize)
                        .map_err(ModelError::from)
                });
                let base = base.transpose()?.map(|b| b.unsqueeze(0)).transpose()?;
                let places = at
                    .slots
                    .iter()
                    .map(|slot| (slot / at.routing.top_k as u32, at.expert))
                    .collect();
                self.hook((UnitKind::Expert, at.layer), places, value, base).map(Some)
            }
            Site::Z { layer } if self.kinds.contains(&UnitKind::Head) => {
                let (n, heads, _) = value.dims3()?;
                let base = self.means.map(|m| layer_mean(&m.heads, layer)).transpose()?;
                let base = base.map(|b| b.unsqueeze(0)).transpose()?;
                let places = (0..n as u32)
                    .flat_map(|row| (0..heads as u32).map(move |head| (row, head)))
                    .collect();
                self.hook((UnitKind::Head, layer), places, value, base).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Signed and positive sums of each kind that is asked for.
struct Effects(Vec<(UnitKind, UnitSums)>);

impl Effects {
    fn new(request: &ProbeRequest<'_>) -> Self {
        let (shape, prompts) = (request.model.shape(), request.prompts.sequences.len());
        let statistics = Estimator::ATP.row().statistics;
        let of = |kind: &UnitKind| {
            (*kind, UnitSums::new((*kind, statistics), &shape, &request.layers, prompts))
        };
        Self(request.kinds.iter().map(of).collect())
    }

    fn blank(&self, prompts: usize) -> Self {
        Self(self.0.iter().map(|(kind, sums)| (*kind, sums.blank(prompts))).collect())
    }

    fn take(&mut self, batch: &Self, members: &[usize]) {
        let both = self.0.iter_mut().zip(&batch.0);
        both.for_each(|((_, into), (_, from))| into.take(from, members));
    }

    /// Adds the effects of a layer's units. Their gradients are read together: on a GPU each
    /// reading waits for all work.
    fn add_all(&mut self, handles: &[Handle], gradients: &GradStore, batch: &Batch) -> Result<()> {
        let lost = || {
            ModelError::Request(
                "a gradient was lost on its way to a unit: this is a bug in a layer".into(),
            )
        };
        let flat = |handle: &Handle| -> Result<Tensor> {
            Ok(gradients.get(&handle.moved).ok_or_else(lost)?.flatten_all()?)
        };
        if handles.is_empty() {
            return Ok(());
        }
        let all = Tensor::cat(&handles.iter().map(flat).collect::<Result<Vec<_>>>()?, 0)?
            .to_dtype(DType::F32)?;
        let all: Vec<f32> = all.to_vec1()?;
        let mut rest = all.as_slice();
        for handle in handles {
            let (own, others) = rest.split_at(handle.places.len().min(rest.len()));
            self.add(handle, own, batch);
            rest = others;
        }
        Ok(())
    }

    fn add(&mut self, handle: &Handle, effects: &[f32], batch: &Batch) {
        let of_kind = self.0.iter_mut().find(|(kind, _)| *kind == handle.kind);
        let Some((_, sums)) = of_kind else { return };
        for ((row, unit), effect) in handle.places.iter().zip(effects) {
            let effect = f64::from(*effect);
            let Some((prompt, _)) = batch.place.get(*row as usize) else { continue };
            sums.add((handle.layer, *unit), *prompt as usize, [effect, effect.abs()]);
        }
    }
}

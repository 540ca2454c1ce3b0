//! Attribution patching (Nanda 2023; Syed et al. 2023): all units' first-order effects from one forward and backward.
//!
//! A unit's output n is replaced by α·n + β·baseline with α = 1 and β = 0 at every token; the loss's gradients with
//! respect to the two give (baseline − n)·∂L/∂n = ∂L/∂β − ∂L/∂α, token by token, without keeping n.

use crate::evaluate::response_nll;
use crate::means::{Means, means};
use crate::{Result, prompt_tokens};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use uspx_domain::{Baseline, Column, Deposit, ModelShape, Prompt, Statistic, Unit, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::taps::{Site, Taps};
use uspx_model::{LoadedModel, ModelError, Pulse, batches};

/// First-order effects of all experts and heads: columns [`Statistic::Atp`] (signed) and [`Statistic::AtpAbs`]
/// (made positive per token), in nats summed over all positions of a prompt.
///
/// # Errors
/// A kind that has no gradient probe; a prompt without a reference; those of the model; a stop by the keeper.
pub fn attribution(
    model: &LoadedModel,
    prompts: &[Prompt],
    kinds: &[UnitKind],
    baseline: Baseline,
    batch_tokens: usize,
    pulse: &dyn Pulse,
) -> Result<Deposit> {
    if kinds.contains(&UnitKind::Channel) {
        return Err(ModelError::Request(
            "attribution patching serves experts and heads; channels are not yet served".into(),
        ));
    }
    let sequences = model.with_references(prompts)?;
    let means = match baseline {
        Baseline::Zero => None,
        Baseline::Mean => Some(means(model, &sequences, batch_tokens)?),
    };
    let shape = model.shape();
    let mut effects = Effects::new(&shape, prompts.len());
    let plan = batches(&sequences, batch_tokens)?;
    let total = plan.len() as u64;
    for (done, (members, batch)) in plan.iter().enumerate() {
        let frame = model.transformer.frame(batch)?;
        let mut taps = GradientTaps { means: means.as_ref(), kinds, handles: Vec::new() };
        let x = model.transformer.forward(batch, &frame, &mut taps)?;
        let gradients = response_nll(&model.transformer, &x, batch)?.sum_all()?.backward()?;
        for handle in &taps.handles {
            effects.add(handle, &gradients, batch, members)?;
        }
        pulse.beat(done as u64 + 1, total)?;
    }
    Ok(Deposit { prompts: prompt_tokens(prompts, &sequences), columns: effects.columns(&shape, kinds) })
}

/// The multipliers of one layer's units.
struct Handle {
    kind: UnitKind,
    layer: usize,
    /// Unit of each (token, slot).
    units: Vec<u32>,
    slots: usize,
    alpha: Var,
    beta: Option<Var>,
}

struct GradientTaps<'a> {
    means: Option<&'a Means>,
    kinds: &'a [UnitKind],
    handles: Vec<Handle>,
}

impl GradientTaps<'_> {
    /// α·value + β·baseline; `base` has the value's shape or broadcasts to it.
    fn hook(
        &mut self,
        kind: UnitKind,
        layer: usize,
        units: Vec<u32>,
        value: &Tensor,
        base: Option<Tensor>,
    ) -> Result<Tensor> {
        let (n, slots, _) = value.dims3()?;
        let alpha = Var::ones((n, slots, 1), value.dtype(), value.device())?;
        let mut patched = value.broadcast_mul(alpha.as_tensor())?;
        let mut beta = None;
        if let Some(base) = base {
            let var = Var::zeros((n, slots, 1), value.dtype(), value.device())?;
            let base = base.broadcast_as(value.shape())?.contiguous()?;
            patched = (patched + base.broadcast_mul(var.as_tensor())?)?;
            beta = Some(var);
        }
        self.handles.push(Handle { kind, layer, units, slots, alpha, beta });
        Ok(patched)
    }
}

fn layer_mean(list: &[Tensor], layer: usize) -> Result<&Tensor> {
    list.get(layer).ok_or_else(|| ModelError::Request(format!("no mean output for layer {layer}")))
}

impl Taps for GradientTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::Experts { layer, routing } if self.kinds.contains(&UnitKind::Expert) => {
                let base = match self.means {
                    None => None,
                    Some(means) => {
                        let ids = Tensor::from_slice(&routing.chosen, routing.chosen.len(), value.device())?;
                        Some(layer_mean(&means.experts, layer)?.index_select(&ids, 0)?.reshape(value.shape())?)
                    }
                };
                self.hook(UnitKind::Expert, layer, routing.chosen.clone(), value, base).map(Some)
            }
            Site::Heads { layer } if self.kinds.contains(&UnitKind::Head) => {
                let (n, heads, _) = value.dims3()?;
                let base = self.means.map(|m| layer_mean(&m.heads, layer)).transpose()?;
                let base = base.map(|b| b.unsqueeze(0)).transpose()?;
                let units = (0..n).flat_map(|_| 0..heads as u32).collect();
                self.hook(UnitKind::Head, layer, units, value, base).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Signed and absolute sums, `[layer][unit][prompt]` for experts and heads.
struct Effects {
    prompts: usize,
    shape: ModelShape,
    expert: (Vec<f64>, Vec<f64>),
    head: (Vec<f64>, Vec<f64>),
}

impl Effects {
    fn new(shape: &ModelShape, prompts: usize) -> Self {
        let zeros = |kind| {
            let size = (shape.layers * shape.per_layer(kind)) as usize * prompts;
            (vec![0.0; size], vec![0.0; size])
        };
        Self { prompts, shape: *shape, expert: zeros(UnitKind::Expert), head: zeros(UnitKind::Head) }
    }

    fn sums(&mut self, kind: UnitKind) -> &mut (Vec<f64>, Vec<f64>) {
        if kind == UnitKind::Head { &mut self.head } else { &mut self.expert }
    }

    fn add(&mut self, handle: &Handle, gradients: &GradStore, batch: &Batch, members: &[usize]) -> Result<()> {
        let lost = || ModelError::Request("a gradient was lost on its way to a unit: this is a bug in a layer".into());
        let read = |var: &Var| -> Result<Vec<f32>> {
            Ok(gradients.get(var).ok_or_else(lost)?.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1()?)
        };
        let alpha = read(&handle.alpha)?;
        let beta = handle.beta.as_ref().map(read).transpose()?;
        let (prompts, width) = (self.prompts, self.shape.per_layer(handle.kind) as usize);
        let (signed, positive) = self.sums(handle.kind);
        for (slot, (unit, a)) in handle.units.iter().zip(&alpha).enumerate() {
            let b = beta.as_ref().and_then(|b| b.get(slot)).copied().unwrap_or(0.0);
            let effect = f64::from(b) - f64::from(*a);
            let row = slot / handle.slots;
            let prompt = batch.place.get(row).and_then(|(sequence, _)| members.get(*sequence as usize));
            let Some(prompt) = prompt else { continue };
            let at = (handle.layer * width + *unit as usize) * prompts + prompt;
            if let (Some(s), Some(p)) = (signed.get_mut(at), positive.get_mut(at)) {
                *s += effect;
                *p += effect.abs();
            }
        }
        Ok(())
    }

    fn columns(&mut self, shape: &ModelShape, kinds: &[UnitKind]) -> Vec<Column> {
        let width = self.prompts.max(1);
        let mut columns = Vec::new();
        for &kind in kinds {
            let (signed, positive) = self.sums(kind);
            let both = signed.chunks_exact(width).zip(positive.chunks_exact(width));
            for (unit, (signed, positive)) in shape.units(kind).zip(both) {
                columns.push(column(unit, Statistic::Atp, signed));
                columns.push(column(unit, Statistic::AtpAbs, positive));
            }
        }
        columns
    }
}

fn column(unit: Unit, statistic: Statistic, values: &[f64]) -> Column {
    Column { unit, statistic, values: values.iter().map(|v| *v as f32).collect() }
}

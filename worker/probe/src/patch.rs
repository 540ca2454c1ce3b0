//! Attribution patching (Nanda 2023; Syed et al. 2023): all units' first-order effects from one forward and backward.
//!
//! A unit's output n is replaced by α·n + β·baseline with α = 1 and β = 0 at every token; the loss's gradients with
//! respect to the two give (baseline − n)·∂L/∂n = ∂L/∂β − ∂L/∂α, token by token, without keeping n.

use crate::batching::{at_members, each_batch};
use crate::means::{Means, means};
use crate::{Result, prompt_tokens};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use uspx_domain::{Baseline, Column, Deposit, ModelShape, Statistic, Unit, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::taps::{Site, Taps};
use uspx_model::{LoadedModel, ModelError, Pulse, Readable};

/// First-order effects of all experts and heads: columns [`Statistic::Atp`] (signed) and [`Statistic::AtpAbs`]
/// (made positive per token), in nats summed over all positions of a prompt.
///
/// # Errors
/// A kind that has no gradient probe; those of the model; a stop by the keeper.
pub fn attribution(
    model: &LoadedModel,
    prompts: &Readable,
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
    let sequences = &prompts.sequences;
    let means = match baseline {
        Baseline::Zero => None,
        Baseline::Mean => Some(means(model, sequences, batch_tokens)?),
    };
    let shape = model.shape();
    let mut effects = Effects::new(&shape, sequences.len());
    let (mut done, total) = (0, sequences.len() as u64);
    each_batch(sequences, batch_tokens, Batch::new, &mut |members, batch| {
        let frame = model.transformer.frame(batch)?;
        let mut found = Effects::new(&shape, members.len());
        let mut boundaries = model.transformer.spool();
        let mut keep = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
            if let Site::Residual { .. } = site {
                boundaries.push(value)?;
            }
            Ok(None)
        };
        let x = model.transformer.forward(batch, &frame, &mut keep)?;
        model.transformer.backward(
            (&x, &frame, &boundaries),
            |x| Ok(model.transformer.response_nll(x, batch)?.sum_all()?),
            || GradientTaps { means: means.as_ref(), kinds, handles: Vec::new() },
            |taps, gradients| found.add_all(&taps.handles, gradients, batch),
        )?;
        effects.take(&found, members);
        done += members.len() as u64;
        pulse.beat(done, total)
    })?;
    Ok(Deposit { prompts: prompt_tokens(prompts), columns: effects.columns(&shape, kinds) })
}

/// The multipliers of some of a layer's units.
struct Handle {
    kind: UnitKind,
    layer: usize,
    /// Row of the batch and unit of each multiplier.
    places: Vec<(u32, u32)>,
    alpha: Var,
    beta: Option<Var>,
}

struct GradientTaps<'a> {
    means: Option<&'a Means>,
    kinds: &'a [UnitKind],
    handles: Vec<Handle>,
}

impl GradientTaps<'_> {
    /// α·value + β·baseline; `value` is `[.., width]`, and `base` broadcasts to it.
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
        let alpha = Var::ones(dims.as_slice(), value.dtype(), value.device())?;
        let mut patched = value.broadcast_mul(alpha.as_tensor())?;
        let mut beta = None;
        if let Some(base) = base {
            let var = Var::zeros(dims.as_slice(), value.dtype(), value.device())?;
            let base = base.broadcast_as(value.shape())?.contiguous()?;
            patched = (patched + base.broadcast_mul(var.as_tensor())?)?;
            beta = Some(var);
        }
        self.handles.push(Handle { kind, layer, places, alpha, beta });
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
                let base = self
                    .means
                    .map(|m| layer_mean(&m.experts, at.layer)?.get(at.expert as usize).map_err(ModelError::from));
                let base = base.transpose()?.map(|b| b.unsqueeze(0)).transpose()?;
                let places = at.slots.iter().map(|slot| (slot / at.routing.top_k as u32, at.expert)).collect();
                self.hook((UnitKind::Expert, at.layer), places, value, base).map(Some)
            }
            Site::Heads { layer } if self.kinds.contains(&UnitKind::Head) => {
                let (n, heads, _) = value.dims3()?;
                let base = self.means.map(|m| layer_mean(&m.heads, layer)).transpose()?;
                let base = base.map(|b| b.unsqueeze(0)).transpose()?;
                let places = (0..n as u32).flat_map(|row| (0..heads as u32).map(move |head| (row, head))).collect();
                self.hook((UnitKind::Head, layer), places, value, base).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// As many values as `var` has, from the front of `rest`.
fn take<'a>(rest: &mut &'a [f32], var: &Var) -> &'a [f32] {
    let (front, back) = rest.split_at(var.elem_count().min(rest.len()));
    *rest = back;
    front
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

    /// Adds the effects of a layer's units. Their gradients are read together: on a GPU each reading waits for all work.
    fn add_all(&mut self, handles: &[Handle], gradients: &GradStore, batch: &Batch) -> Result<()> {
        let lost = || ModelError::Request("a gradient was lost on its way to a unit: this is a bug in a layer".into());
        let vars: Vec<&Var> = handles.iter().flat_map(|h| std::iter::once(&h.alpha).chain(&h.beta)).collect();
        let flat = |var: &&Var| -> Result<Tensor> { Ok(gradients.get(var).ok_or_else(lost)?.flatten_all()?) };
        if vars.is_empty() {
            return Ok(());
        }
        let all = Tensor::cat(&vars.iter().map(flat).collect::<Result<Vec<_>>>()?, 0)?.to_dtype(DType::F32)?;
        let all: Vec<f32> = all.to_vec1()?;
        let mut rest = all.as_slice();
        for handle in handles {
            let alpha = take(&mut rest, &handle.alpha);
            let beta = handle.beta.as_ref().map(|beta| take(&mut rest, beta));
            self.add(handle, alpha, beta, batch);
        }
        Ok(())
    }

    fn add(&mut self, handle: &Handle, alpha: &[f32], beta: Option<&[f32]>, batch: &Batch) {
        let (prompts, width) = (self.prompts, self.shape.per_layer(handle.kind) as usize);
        let (signed, positive) = self.sums(handle.kind);
        for (i, ((row, unit), a)) in handle.places.iter().zip(alpha).enumerate() {
            let b = beta.and_then(|b| b.get(i)).copied().unwrap_or(0.0);
            let effect = f64::from(b) - f64::from(*a);
            let Some((prompt, _)) = batch.place.get(*row as usize) else { continue };
            let at = (handle.layer * width + *unit as usize) * prompts + *prompt as usize;
            if let (Some(s), Some(p)) = (signed.get_mut(at), positive.get_mut(at)) {
                *s += effect;
                *p += effect.abs();
            }
        }
    }

    /// Puts a batch's sums at the places of its prompts.
    fn take(&mut self, batch: &Effects, members: &[usize]) {
        let lists = [
            (&mut self.expert.0, &batch.expert.0),
            (&mut self.expert.1, &batch.expert.1),
            (&mut self.head.0, &batch.head.0),
            (&mut self.head.1, &batch.head.1),
        ];
        for (into, from) in lists {
            at_members(into, from, self.prompts, members);
        }
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

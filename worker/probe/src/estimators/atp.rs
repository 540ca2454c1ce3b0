//! Attribution patching (Nanda 2023; Syed et al. 2023): all units' first-order effects from one
//! forward and backward.
//!
//! A unit's output n is replaced by n + δ·(baseline − n) with δ = 0 at every token; the loss's
//! gradient with respect to δ is (baseline − n)·∂L/∂n, token by token.

use super::{Measure, ProbeRequest};
use crate::Result;
use crate::differentiate::differentiate;
use crate::effects::{Effects, effects};
use crate::means::{Means, means_of, way};
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Tensor, Var};
use uspx_domain::{Deposit, Estimator, Unit, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::custom_gradients::with_gradients;
use uspx_model::taps::{Site, Taps};
use uspx_model::{ModelError, Progress};

/// First-order effects, signed and made positive per token, in nats summed over all positions of a
/// prompt.
pub(super) struct AttributionPatching;

impl Measure for AttributionPatching {
    fn estimator(&self) -> Estimator {
        Estimator::ATP
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        let means = means_of(request)?;
        let (means, kinds) = (means.as_ref(), request.kinds);
        let how = (self.estimator(), request.batch_tokens);
        effects(request, how, progress, &mut |_, batch, found| {
            let tapped = |_: &Tensor| Ok(GradientTaps { means, kinds, handles: Vec::new() });
            let transformer = &request.model.transformer;
            let start = transformer.embed(&batch.ids)?;
            differentiate(request, batch, start, tapped, |taps, gradients| {
                add_all(&taps.handles, gradients, batch, found)
            })
        })
    }
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
        let inputs = [value, moved.as_tensor(), moved.as_tensor()];
        let patched = with_gradients("towards-baseline", inputs, value.detach(), move |grad| {
            let effect = (grad * way(&plain, base.as_ref())?)?.sum_keepdim(D::Minus1)?;
            Ok([Some(grad.clone()), Some(effect), None])
        })?;
        self.handles.push(Handle { kind, layer, places, moved });
        Ok(patched)
    }
}

impl Taps for GradientTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::ExpertOut(at) if self.kinds.contains(&UnitKind::Expert) => {
                let base =
                    self.means.map(|means| means.of_expert(at.layer, at.expert)).transpose()?;
                let places = at
                    .slots
                    .iter()
                    .map(|slot| (slot / at.routing.top_k as u32, at.expert))
                    .collect();
                self.hook((UnitKind::Expert, at.layer), places, value, base).map(Some)
            }
            Site::Z { layer } if self.kinds.contains(&UnitKind::Head) => {
                let (n, heads, _) = value.dims3()?;
                let base = self.means.map(|means| means.of_heads(layer)).transpose()?;
                let places = (0..n as u32)
                    .flat_map(|row| (0..heads as u32).map(move |head| (row, head)))
                    .collect();
                self.hook((UnitKind::Head, layer), places, value, base).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Adds the effects of a layer's units. Their gradients are read together: on a GPU each reading
/// waits for all work.
fn add_all(
    handles: &[Handle],
    gradients: &GradStore,
    batch: &Batch,
    found: &mut Effects,
) -> Result<()> {
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
    let each = handles.iter().flat_map(|h| h.places.iter().map(move |place| (h, place)));
    for ((handle, (row, index)), effect) in each.zip(all) {
        let Some((prompt, _)) = batch.place.get(*row as usize) else { continue };
        let unit = Unit { kind: handle.kind, layer: handle.layer as u32, index: *index };
        found.add(unit, *prompt, f64::from(effect));
    }
    Ok(())
}

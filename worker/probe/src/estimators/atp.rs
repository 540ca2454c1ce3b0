//! Attribution patching (Nanda 2023; Syed et al. 2023): all units' first-order effects from one
//! forward and backward; see [`super::relp`] for what else may be carried back.
//!
//! A unit's output n is replaced by n + δ·(baseline − n) with δ = 0 at every token; the loss's
//! gradient with respect to δ is (baseline − n)·∂L/∂n, token by token. Channels are too many for
//! that: theirs are added up over a prompt's tokens on the way back; so are those of features, which
//! need no way back (`features`).

use super::features::FeatureEffects;
use super::{Measure, ProbeRequest};
use crate::Result;
use crate::differentiate::differentiate;
use crate::effects::{Effects, effects};
use crate::means::{Means, means_of, way};
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Tensor, Var};
use uspx_domain::{Deposit, Estimator, Unit, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::custom_gradients::with_gradients;
use uspx_model::cuts::Substitutes;
use uspx_model::taps::{AtExpert, Backward, Site, Taps};
use uspx_model::{ModelError, Progress};

/// First-order effects, signed and made positive per token, in nats summed over all positions of a
/// prompt.
pub(super) struct AttributionPatching;

impl Measure for AttributionPatching {
    fn estimator(&self) -> Estimator {
        Estimator::ATP
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        attribute(request, (self.estimator(), Backward::Gradient), progress)
    }
}

/// (baseline − n) times what is carried back to n, of all units that are asked for.
pub(super) fn attribute(
    request: &ProbeRequest<'_>,
    (estimator, back): (Estimator, Backward),
    progress: &dyn Progress,
) -> Result<Deposit> {
    let means = means_of(request)?;
    let means = means.as_ref();
    let how = (estimator, request.batch_tokens);
    effects(request, how, progress, &mut |_, batch, found| {
        let prompts = Prompts::of(batch, request.model.transformer.device())?;
        let tapped = |gradient: &Tensor| {
            let mut taps = GradientTaps::new(request, means, &prompts);
            taps.gradient = request.wants(UnitKind::Feature).then(|| gradient.clone());
            Ok(taps)
        };
        let start = request.model.transformer.embed(&batch.ids)?;
        differentiate(request, (batch, back), start, tapped, |taps, gradients| {
            taps.read(gradients, batch, &mut |unit, prompt, effect| {
                found.add(unit, prompt, effect);
            })?;
            add_sums(&taps.sums, gradients, &prompts, found)?;
            taps.features.iter().try_for_each(|own| own.tell(&prompts, found))
        })
    })
}

/// How far some of a layer's units are moved towards their baselines.
struct Handle {
    kind: UnitKind,
    layer: usize,
    /// Row of the batch and unit of each value of `moved`.
    places: Vec<(u32, u32)>,
    moved: Var,
}

/// Channels moved towards their baselines, prompt by prompt: the gradients of these are the effects
/// added up over the prompt's tokens, as they are and made positive before.
struct Sums {
    kind: UnitKind,
    layer: usize,
    /// The first channel in its layer.
    first: usize,
    /// `[P, channels]` each.
    moved: [Var; 2],
}

/// The prompts of a batch.
pub(super) struct Prompts {
    /// Of each row, on the device.
    of_row: Tensor,
    /// Response tokens of each.
    tokens: Vec<u32>,
}

impl Prompts {
    pub(super) fn of(batch: &Batch, device: &Device) -> Result<Self> {
        let of_row: Vec<u32> = batch.place.iter().map(|(prompt, _)| *prompt).collect();
        let tokens = batch.responses.iter().map(|count| *count as u32).collect();
        Ok(Self { of_row: Tensor::from_slice(&of_row, of_row.len(), device)?, tokens })
    }

    /// Response tokens of each.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The sums of a value over each prompt's rows: `[N, ..]` to `[P, ..]`.
    pub(super) fn sums(&self, value: &Tensor) -> Result<Tensor> {
        Ok(sums(value, &self.of_row, self.tokens.len())?)
    }
}

/// The sums of a value's rows, `[rows, units]`, over so many prompts, `[P, units]`; the rows belong
/// to prompts as `of_row` says.
fn sums(value: &Tensor, of_row: &Tensor, prompts: usize) -> candle_core::Result<Tensor> {
    let none = Tensor::zeros((prompts, value.dim(1)?), value.dtype(), value.device())?;
    none.index_add(of_row, value, 0)
}

pub(super) struct GradientTaps<'a> {
    request: &'a ProbeRequest<'a>,
    means: Option<&'a Means>,
    prompts: &'a Prompts,
    handles: Vec<Handle>,
    sums: Vec<Sums>,
    /// With respect to the layer's output, where its features are asked for.
    gradient: Option<Tensor>,
    features: Option<FeatureEffects>,
}

impl<'a> GradientTaps<'a> {
    /// Of a layer that nothing is known of yet.
    pub(super) fn new(
        request: &'a ProbeRequest<'a>,
        means: Option<&'a Means>,
        prompts: &'a Prompts,
    ) -> Self {
        let (handles, sums) = (Vec::new(), Vec::new());
        Self { request, means, prompts, handles, sums, gradient: None, features: None }
    }

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

impl GradientTaps<'_> {
    /// Tells the effect of each of the layer's units on each token, and whose prompt's it is. Their
    /// gradients are read together: on a GPU each reading waits for all work.
    pub(super) fn read(
        &self,
        gradients: &GradStore,
        batch: &Batch,
        tell: &mut dyn FnMut(Unit, u32, f64),
    ) -> Result<()> {
        let flat = |handle: &Handle| -> Result<Tensor> {
            Ok(gradients.get(&handle.moved).ok_or_else(lost)?.flatten_all()?)
        };
        if self.handles.is_empty() {
            return Ok(());
        }
        let all = self.handles.iter().map(flat).collect::<Result<Vec<_>>>()?;
        let all: Vec<f32> = Tensor::cat(&all, 0)?.to_dtype(DType::F32)?.to_vec1()?;
        let each = self.handles.iter().flat_map(|h| h.places.iter().map(move |place| (h, place)));
        for ((handle, (row, index)), effect) in each.zip(all) {
            let Some((prompt, _)) = batch.place.get(*row as usize) else { continue };
            let unit = Unit { kind: handle.kind, layer: handle.layer as u32, index: *index };
            tell(unit, *prompt, f64::from(effect));
        }
        Ok(())
    }

    /// The same for channels, `[rows, channels]`, of which the rows belong to prompts as `of_row`
    /// says.
    fn hook_sums(
        &mut self,
        (kind, layer, first): (UnitKind, usize, usize),
        of_row: Tensor,
        value: &Tensor,
        base: Option<Tensor>,
    ) -> Result<Tensor> {
        let prompts = self.prompts.tokens.len();
        let zeros = || Var::zeros((prompts, value.dim(1)?), value.dtype(), value.device());
        let moved = [zeros()?, zeros()?];
        let [signed, positive] = &moved;
        let plain = value.detach();
        let inputs = [value, signed.as_tensor(), positive.as_tensor()];
        let patched = with_gradients("towards-baseline", inputs, value.detach(), move |grad| {
            let effect = (grad * way(&plain, base.as_ref())?)?;
            let signed = sums(&effect, &of_row, prompts)?;
            let positive = sums(&effect.abs()?, &of_row, prompts)?;
            Ok([Some(grad.clone()), Some(signed), Some(positive)])
        })?;
        self.sums.push(Sums { kind, layer, first, moved });
        Ok(patched)
    }

    fn hook_expert_channels(&mut self, at: AtExpert<'_>, value: &Tensor) -> Result<Tensor> {
        let (layer, expert) = (at.layer, at.expert);
        let base = self.means.map(|m| m.of_channels_of(layer, expert)).transpose()?;
        let rows: Vec<u32> = at.slots.iter().map(|s| s / at.routing.top_k as u32).collect();
        let rows = Tensor::from_slice(&rows, rows.len(), value.device())?;
        let of_row = self.prompts.of_row.index_select(&rows, 0)?;
        let first = expert as usize * value.dim(1)?;
        self.hook_sums((UnitKind::ExpertChannel, layer, first), of_row, value, base)
    }
}

impl Taps for GradientTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::ExpertOut(at) if self.request.wants(UnitKind::Expert) => {
                let base =
                    self.means.map(|means| means.of_expert(at.layer, at.expert)).transpose()?;
                let places = at
                    .slots
                    .iter()
                    .map(|slot| (slot / at.routing.top_k as u32, at.expert))
                    .collect();
                self.hook((UnitKind::Expert, at.layer), places, value, base).map(Some)
            }
            Site::Z { layer } if self.request.wants(UnitKind::Head) => {
                let (n, heads, _) = value.dims3()?;
                let base = self.means.map(|means| means.of_heads(layer)).transpose()?;
                let places = (0..n as u32)
                    .flat_map(|row| (0..heads as u32).map(move |head| (row, head)))
                    .collect();
                self.hook((UnitKind::Head, layer), places, value, base).map(Some)
            }
            Site::ExpertChannels(at) if self.request.wants(UnitKind::ExpertChannel) => {
                self.hook_expert_channels(at, value).map(Some)
            }
            Site::Channels { layer } if self.request.wants(UnitKind::Channel) => {
                let base = self.means.map(|means| means.of_channels(layer)).transpose()?;
                let of_row = self.prompts.of_row.clone();
                self.hook_sums((UnitKind::Channel, layer, 0), of_row, value, base).map(Some)
            }
            Site::ResidPost { layer } => {
                if let Some(gradient) = &self.gradient {
                    let of = (&self.request.model.dictionaries, self.means);
                    let here = (value, gradient);
                    self.features = FeatureEffects::of(of, layer, here, self.prompts)?;
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// Adds the effects of a layer's channels.
fn add_sums(
    sums: &[Sums],
    gradients: &GradStore,
    prompts: &Prompts,
    found: &mut Effects,
) -> Result<()> {
    for Sums { kind, layer, first, moved: [signed, positive] } in sums {
        let of = |moved: &Var| gradients.get(moved).ok_or_else(lost);
        let both = [of(signed)?, of(positive)?];
        found.add_many(*kind, (*layer, *first), both, &prompts.tokens)?;
    }
    Ok(())
}

fn lost() -> ModelError {
    let reason = "a gradient was lost on its way to a unit: this is a bug in a layer";
    ModelError::Request(reason.into())
}

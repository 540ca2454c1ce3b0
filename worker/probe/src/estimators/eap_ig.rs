//! Attribution along a path of inputs (EAP-IG-inputs; Hanna et al. 2024, arXiv 2403.17806, for
//! units in place of edges).
//!
//! A unit's effect is (baseline − n)·∂L/∂n, n as it is on the prompt, the gradient the mean over
//! inputs that go from each prompt's mean embedding to its own: e_base + s/S·(e − e_base), s = 1 ..
//! S. Where the loss is flat at the prompt itself, the way there still has a slope. An expert's n is
//! what it adds to its layer's output, gate times output: its gradient is that of the layer's
//! output, wherever the tokens of the other inputs are routed. So is that of a feature behind it.
//!
//! The S inputs of a prompt run as S sequences of one batch, the last of them the prompt itself.

use super::atp::Prompts;
use super::features::FeatureEffects;
use super::{Measure, ProbeRequest};
use crate::Result;
use crate::differentiate::differentiate;
use crate::effects::{Effects, effects};
use crate::means::{Means, means_of, way};
use crate::path::{mean_step, path};
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Tensor, Var};
use uspx_domain::{Deposit, Estimator, Unit, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::cuts::Substitutes;
use uspx_model::taps::{AtExpert, Backward, Site, Taps};
use uspx_model::{ModelError, Progress};

/// Effects along a path of inputs, signed and made positive per token.
pub(super) struct IntegratedGradients;

impl Measure for IntegratedGradients {
    fn estimator(&self) -> Estimator {
        Estimator::EAP_IG
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        let means = means_of(request)?;
        let how = (self.estimator(), request.batch_tokens / request.steps);
        effects(request, how, progress, &mut |members, batch, found| {
            along(request, means.as_ref(), (members, batch), found)
        })
    }
}

/// Adds the effects of the sequences that make up `batch`.
fn along(
    request: &ProbeRequest<'_>,
    means: Option<&Means>,
    (members, batch): (&[usize], &Batch),
    found: &mut Effects,
) -> Result<()> {
    let (steps, start) = path(request, (members, batch))?;
    let prompts = &Prompts::of(batch, request.model.transformer.device())?;
    let tapped = |gradient: &Tensor| {
        let (rows, [heads, channels]) = (batch.tokens(), [None, None]);
        let (experts, features) = (Vec::new(), None);
        let gradient = mean_step(gradient, rows)?;
        let all = StepTaps {
            request,
            means,
            rows,
            gradient,
            prompts,
            heads,
            channels,
            experts,
            features,
        };
        Ok(all)
    };
    differentiate(request, (&steps, Backward::Gradient), start, tapped, |taps, gradients| {
        taps.heads(gradients, batch, found)?;
        taps.channels(gradients, found)?;
        taps.experts(batch, found)?;
        taps.features.iter().try_for_each(|own| own.tell(prompts, found))
    })
}

/// The taps of one layer.
struct StepTaps<'a> {
    request: &'a ProbeRequest<'a>,
    means: Option<&'a Means>,
    /// N: rows of each step.
    rows: usize,
    /// With respect to the layer's output, the mean over the steps: `[N, hidden]`.
    gradient: Tensor,
    prompts: &'a Prompts,
    heads: Option<Held>,
    channels: Option<Held>,
    experts: Vec<OfExpert>,
    features: Option<FeatureEffects>,
}

/// The heads of a layer, or its channels.
struct Held {
    layer: usize,
    /// Zeros added to the outputs, `[S · N, heads, head_dim]` or `[S · N, channels]`: their gradient
    /// is the outputs'.
    moved: Var,
    /// Baseline − output on the prompts themselves, `[N, ..]`.
    way: Tensor,
}

/// One expert on the prompts themselves.
struct OfExpert {
    layer: usize,
    expert: u32,
    /// Rows of the prompts that chose it.
    rows: Vec<u32>,
    /// The effect at each of them, in f32.
    effects: Tensor,
}

impl StepTaps<'_> {
    /// The first row of the prompts themselves.
    fn start(&self) -> usize {
        self.rows * (self.request.steps - 1)
    }

    /// A value with zeros added, whose gradient is asked for.
    fn hold(&self, layer: usize, value: &Tensor, base: Option<Tensor>) -> Result<(Held, Tensor)> {
        let moved = Var::zeros(value.shape(), value.dtype(), value.device())?;
        let own = value.detach().narrow(0, self.start(), self.rows)?;
        let way = way(&own, base.as_ref())?;
        let out = (value + moved.as_tensor())?;
        Ok((Held { layer, moved, way }, out))
    }

    fn hold_heads(&mut self, layer: usize, z: &Tensor) -> Result<Tensor> {
        let base = self.means.map(|means| means.of_heads(layer)).transpose()?;
        let (held, out) = self.hold(layer, z, base)?;
        self.heads = Some(held);
        Ok(out)
    }

    fn hold_channels(&mut self, layer: usize, value: &Tensor) -> Result<Tensor> {
        let base = self.means.map(|means| means.of_channels(layer)).transpose()?;
        let (held, out) = self.hold(layer, value, base)?;
        self.channels = Some(held);
        Ok(out)
    }

    fn hold_expert(&mut self, at: AtExpert<'_>, out: &Tensor) -> Result<()> {
        let (start, top_k) = (self.start(), at.routing.top_k);
        let own = (0u32..).zip(at.slots).filter(|(_, slot)| **slot as usize / top_k >= start);
        let (places, slots): (Vec<u32>, Vec<u32>) = own.map(|(i, slot)| (i, *slot)).unzip();
        if slots.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = slots.iter().map(|slot| slot / top_k as u32 - start as u32).collect();
        let ids = |ids: &[u32]| Tensor::from_slice(ids, ids.len(), out.device());
        let out = out.detach().index_select(&ids(&places)?, 0)?;
        let base = self.means.map(|means| means.of_expert(at.layer, at.expert)).transpose()?;
        let way = way(&out, base.as_ref())?;
        let gates = at.routing.gates.detach().flatten_all()?.index_select(&ids(&slots)?, 0)?;
        let gradient = self.gradient.index_select(&ids(&rows)?, 0)?;
        let pulls = (gradient * way)?.sum(D::Minus1)?.to_dtype(DType::F32)?;
        let effects = (pulls * gates.to_dtype(DType::F32)?)?;
        self.experts.push(OfExpert { layer: at.layer, expert: at.expert, rows, effects });
        Ok(())
    }

    fn hold_features(&mut self, layer: usize, x: &Tensor) -> Result<()> {
        let own = x.detach().narrow(0, self.start(), self.rows)?;
        let of = (&self.request.model.dictionaries, self.means);
        self.features = FeatureEffects::of(of, layer, (&own, &self.gradient), self.prompts)?;
        Ok(())
    }

    /// (baseline − output) times the mean gradient, value by value.
    fn pulls(&self, held: &Held, gradients: &GradStore) -> Result<Tensor> {
        let lost = || ModelError::Request("a unit's gradient was lost: a bug in a layer".into());
        let gradient = mean_step(gradients.get(&held.moved).ok_or_else(lost)?, self.rows)?;
        Ok((gradient * &held.way)?)
    }

    /// They are added up over a prompt's tokens.
    fn channels(&self, gradients: &GradStore, found: &mut Effects) -> Result<()> {
        let Some(held) = &self.channels else { return Ok(()) };
        let effects = self.pulls(held, gradients)?;
        let (signed, positive) =
            (self.prompts.sums(&effects)?, self.prompts.sums(&effects.abs()?)?);
        let (place, tokens) = ((held.layer, 0), self.prompts.tokens());
        found.add_many(UnitKind::Channel, place, [&signed, &positive], tokens)
    }

    fn heads(&self, gradients: &GradStore, batch: &Batch, found: &mut Effects) -> Result<()> {
        let Some(held) = &self.heads else { return Ok(()) };
        let effects = self.pulls(held, gradients)?.sum(D::Minus1)?.to_dtype(DType::F32)?;
        let effects: Vec<Vec<f32>> = effects.to_vec2()?;
        for (row, (prompt, _)) in effects.iter().zip(&batch.place) {
            for (index, effect) in (0..).zip(row) {
                let unit = Unit { kind: UnitKind::Head, layer: held.layer as u32, index };
                found.add(unit, *prompt, f64::from(*effect));
            }
        }
        Ok(())
    }

    /// They are read together: on a GPU each reading waits for all work.
    fn experts(&self, batch: &Batch, found: &mut Effects) -> Result<()> {
        if self.experts.is_empty() {
            return Ok(());
        }
        let all: Vec<&Tensor> = self.experts.iter().map(|e| &e.effects).collect();
        let all: Vec<f32> = Tensor::cat(&all, 0)?.to_vec1()?;
        let each = self.experts.iter().flat_map(|e| e.rows.iter().map(move |row| (e, *row)));
        for ((of, row), effect) in each.zip(all) {
            let Some((prompt, _)) = batch.place.get(row as usize) else { continue };
            let unit = Unit { kind: UnitKind::Expert, layer: of.layer as u32, index: of.expert };
            found.add(unit, *prompt, f64::from(effect));
        }
        Ok(())
    }
}

impl Taps for StepTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::Z { layer } if self.request.wants(UnitKind::Head) => {
                self.hold_heads(layer, value).map(Some)
            }
            Site::Channels { layer } if self.request.wants(UnitKind::Channel) => {
                self.hold_channels(layer, value).map(Some)
            }
            Site::ExpertOut(at) if self.request.wants(UnitKind::Expert) => {
                self.hold_expert(at, value)?;
                Ok(None)
            }
            Site::ResidPost { layer } if self.request.wants(UnitKind::Feature) => {
                self.hold_features(layer, value)?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

//! GradDrop, of AtP* (Kramár et al. 2024, arXiv 2403.00745): a unit's direct and indirect effects
//! can cancel in one gradient. So there is a gradient for each layer, which leaves that layer out:
//! what it adds to the residual stream counts as given. A unit's effect is the mean over the
//! gradients that leave out another layer than its own.
//!
//! AtP*'s other half, the softmax computed anew for queries and keys, has nothing to do here: no unit
//! is one.

use super::atp::{GradientTaps, Prompts};
use super::{Measure, ProbeRequest};
use crate::Result;
use crate::differentiate::Run;
use crate::effects::effects;
use crate::means::means_of;
use candle_core::Tensor;
use uspx_domain::{Deposit, Estimator};
use uspx_model::Progress;
use uspx_model::taps::{Backward, Site, Taps};

/// Effects by gradients that leave out a layer each, signed and made positive per token and
/// gradient, in nats summed over all positions of a prompt.
pub(super) struct GradDrop;

impl Measure for GradDrop {
    fn estimator(&self) -> Estimator {
        Estimator::ATP_STAR
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        let means = means_of(request)?;
        let (means, model) = (means.as_ref(), request.model);
        let layers = model.transformer.layers();
        // A unit is in one of the layers.
        let share = 1.0 / layers.saturating_sub(1).max(1) as f64;
        let how = (self.estimator(), request.batch_tokens);
        effects(request, how, progress, &mut |_, batch, found| {
            let prompts = Prompts::of(batch, model.transformer.device())?;
            let start = model.transformer.embed(&batch.ids)?;
            let run = Run::forward(request, batch, start)?;
            for dropped in 0..layers {
                let tapped = |_: &Tensor| {
                    let taps = GradientTaps::new(request, means, &prompts);
                    Ok(Dropped { layer: dropped, taps })
                };
                run.backward(Backward::Gradient, tapped, |taps, gradients| {
                    taps.taps.read(gradients, batch, &mut |unit, prompt, effect| {
                        found.add(unit, prompt, effect * share);
                    })
                })?;
            }
            Ok(())
        })
    }
}

/// Taps that leave out a layer: nothing of it is measured, and no gradient goes through what it adds.
struct Dropped<T> {
    layer: usize,
    taps: T,
}

impl<T: Taps> Taps for Dropped<T> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::AttentionOut { layer } | Site::MlpOut { layer } if layer == self.layer => {
                Ok(Some(value.detach()))
            }
            Site::Z { layer } if layer == self.layer => Ok(None),
            Site::ExpertOut(at) if at.layer == self.layer => Ok(None),
            _ => self.taps.at(site, value),
        }
    }
}

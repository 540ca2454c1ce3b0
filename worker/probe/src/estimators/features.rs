//! First-order effects of a layer's features, from the gradient with respect to the residual stream
//! that the layer leaves: (base − a)·(∂L/∂x·d) at each token, a the feature's strength there, d its
//! direction (Marks et al. 2024, arXiv 2403.19647). No feature is in the graph: the stream is what
//! their dictionary reads, and its gradient is known before the layer is differentiated.

use super::atp::Prompts;
use crate::Result;
use crate::effects::Effects;
use crate::means::Means;
use candle_core::{DType, Device, Tensor};
use uspx_domain::UnitKind;
use uspx_model::dictionary::{Strengths, values};
use uspx_model::{Dictionaries, Dictionary};

/// Effects of a token's features that are there at once, `[N, features]`: more features go one part
/// after another.
const AT_ONCE: usize = 1 << 21;

/// What is known of the features of a layer.
pub(super) struct FeatureEffects {
    layer: usize,
    /// Signed and made positive per token, summed over each prompt's: `[P, features]`.
    both: [Tensor; 2],
}

impl FeatureEffects {
    /// Of the stream that leaves a layer and the gradient with respect to it, `[N, hidden]` both, of
    /// these prompts' rows; none of a layer without features.
    pub(super) fn of(
        (dictionaries, means): (&Dictionaries, Option<&Means>),
        layer: usize,
        (x, gradient): (&Tensor, &Tensor),
        prompts: &Prompts,
    ) -> Result<Option<Self>> {
        let Some(dictionary) = dictionaries.of_layer(layer) else { return Ok(None) };
        let base = means.map(|means| means.of_features(layer)).transpose()?;
        let strengths = dictionary.strengths(&values(x)?);
        let gradient = gradient.to_dtype(DType::F32)?;
        let (rows, features) = (x.dim(0)?, dictionary.features());
        let step = (AT_ONCE / rows.max(1)).clamp(1, features.max(1));
        let (mut signed, mut positive) = (Vec::new(), Vec::new());
        for first in (0..features).step_by(step) {
            let part = first..(first + step).min(features);
            let pulls = pulls(dictionary.as_ref(), &gradient, part.clone())?;
            let ways = ways(&strengths, base.as_deref(), part)?.to_device(x.device())?;
            let effects = (pulls * ways)?;
            signed.push(prompts.sums(&effects)?);
            positive.push(prompts.sums(&effects.abs()?)?);
        }
        let both = [Tensor::cat(&signed, 1)?, Tensor::cat(&positive, 1)?];
        Ok(Some(Self { layer, both }))
    }

    /// Adds them.
    pub(super) fn tell(&self, prompts: &Prompts, found: &mut Effects) -> Result<()> {
        let Self { layer, both: [signed, positive] } = self;
        let of = (*layer, 0);
        found.add_many(UnitKind::Feature, of, [signed, positive], prompts.tokens())
    }
}

/// How fast the loss changes along some features' directions, `[N, features]`.
fn pulls(
    dictionary: &dyn Dictionary,
    gradient: &Tensor,
    features: std::ops::Range<usize>,
) -> Result<Tensor> {
    let (width, count) = (dictionary.width(), features.len());
    let part = features.start * width..features.end * width;
    let directions = dictionary.directions().get(part).unwrap_or_default();
    let directions = Tensor::from_slice(directions, (count, width), gradient.device())?;
    Ok(gradient.contiguous()?.matmul(&directions.t()?)?)
}

/// The ways of some features to their baselines, without one to zero: `[N, features]`.
fn ways(
    strengths: &Strengths,
    base: Option<&[f32]>,
    features: std::ops::Range<usize>,
) -> Result<Tensor> {
    let count = features.len();
    let zeros = vec![0.0; count];
    let base = base.and_then(|base| base.get(features.clone())).unwrap_or(&zeros);
    let mut ways = base.repeat(strengths.len());
    for (row, active) in ways.chunks_exact_mut(count.max(1)).zip(strengths) {
        let own = active.iter().filter(|(feature, _)| features.contains(&(*feature as usize)));
        for (feature, strength) in own {
            let place = row.get_mut(*feature as usize - features.start);
            place.into_iter().for_each(|way| *way -= strength);
        }
    }
    Ok(Tensor::from_vec(ways, (strengths.len(), count), &Device::Cpu)?)
}

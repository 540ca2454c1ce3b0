//! Mean outputs of experts, heads and channels, and mean strengths of features, over a prompt set:
//! the baseline `mean`.

use crate::Result;
use crate::estimators::ProbeRequest;
use crate::within::Within;
use candle_core::{DType, Tensor};
use uspx_domain::{Baseline, Estimator, UnitKind};
use uspx_model::cuts::Substitutes;
use uspx_model::dictionary::values;
use uspx_model::taps::{AtExpert, Site, Taps};
use uspx_model::{
    Dictionaries, Dictionary, LoadedModel, ModelError, NoProgress, Progress, Readable, batches,
};

/// Mean outputs, per layer.
#[derive(Debug, Clone)]
pub struct Means {
    /// `[experts, hidden]`: over the tokens routed to the expert.
    experts: Vec<Tensor>,
    /// `[heads, head_dim]`: over all tokens.
    heads: Vec<Tensor>,
    /// `[1, channels]`: over all tokens.
    channels: Vec<Tensor>,
    /// `[experts, channels of an expert]`: over the tokens routed to the expert.
    expert_channels: Vec<Tensor>,
    /// `[1, hidden]`, of a layer's experts together: over all tokens.
    mixtures: Vec<Tensor>,
    /// `[1, features]`: strengths over all tokens, 0 where a feature is not active.
    features: Vec<Tensor>,
}

impl Means {
    /// Of an expert, `[1, hidden]`.
    pub(crate) fn of_expert(&self, layer: usize, expert: u32) -> Result<Tensor> {
        Ok(in_layer(&self.experts, layer)?.get(expert as usize)?.unsqueeze(0)?)
    }

    /// Of an expert's channels, `[1, channels]`.
    pub(crate) fn of_channels_of(&self, layer: usize, expert: u32) -> Result<Tensor> {
        Ok(in_layer(&self.expert_channels, layer)?.get(expert as usize)?.unsqueeze(0)?)
    }

    /// The strengths of a layer's features.
    pub(crate) fn of_features(&self, layer: usize) -> Result<Vec<f32>> {
        Ok(values(in_layer(&self.features, layer)?)?)
    }

    /// Of a layer's experts together, `[1, hidden]`; none of a layer that has none.
    pub(crate) fn of_mixture(&self, layer: usize) -> Option<&Tensor> {
        self.mixtures.get(layer).filter(|mean| mean.elem_count() > 0)
    }
}

impl Substitutes for Means {
    fn of_heads(&self, layer: usize) -> Result<Tensor> {
        Ok(in_layer(&self.heads, layer)?.unsqueeze(0)?)
    }

    fn of_channels(&self, layer: usize) -> Result<Tensor> {
        Ok(in_layer(&self.channels, layer)?.clone())
    }

    fn of_expert_channels(&self, layer: usize) -> Result<Tensor> {
        Ok(in_layer(&self.expert_channels, layer)?.clone())
    }
}

fn in_layer(list: &[Tensor], layer: usize) -> Result<&Tensor> {
    list.get(layer).ok_or_else(|| ModelError::Request(format!("no mean output for layer {layer}")))
}

/// The way from a value to its baseline, which broadcasts to it and is zero where there is none.
pub(crate) fn way(value: &Tensor, base: Option<&Tensor>) -> candle_core::Result<Tensor> {
    base.map_or_else(|| value.neg(), |base| base.broadcast_sub(value))
}

/// The mean outputs over what a request is about, where they are its baseline.
pub(crate) fn means_of(request: &ProbeRequest<'_>) -> Result<Option<Means>> {
    match request.baseline {
        Baseline::Zero | Baseline::Resample => Ok(None),
        Baseline::Mean => {
            let known = request.means.cloned();
            known.map_or_else(|| means(request, &NoProgress), Ok).map(Some)
        }
    }
}

/// The mean outputs of all units of some kinds, and of mixtures where experts are among them.
///
/// # Errors
/// Those of the model; a stop by the keeper.
pub fn mean_outputs(
    model: &LoadedModel,
    prompts: &Readable,
    kinds: &[UnitKind],
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Means> {
    let request =
        ProbeRequest { kinds, ..ProbeRequest::all(Estimator::TRACE, model, prompts, batch_tokens) };
    means(&request, progress)
}

/// One forward pass over what a request is about.
fn means(request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Means> {
    let (model, shape) = (request.model, request.model.shape());
    let sequences = &request.prompts.sequences;
    let none = || vec![None; shape.layers.len()];
    let taps = MeanTaps {
        kinds: request.kinds.to_vec(),
        experts: none(),
        heads: none(),
        channels: none(),
        expert_channels: none(),
        mixtures: none(),
        features: none(),
        dictionaries: &model.dictionaries,
        widths: shape.widths(UnitKind::Expert),
    };
    let mut taps = Within::new(request, taps);
    let (mut done, total) = (0, sequences.len() as u64);
    for (members, batch) in batches(sequences, request.batch_tokens)? {
        let frame = model.transformer.frame(&batch)?;
        model.transformer.forward(&batch, &frame, &mut taps)?;
        done += members.len() as u64;
        progress.report(done, total)?;
    }
    // A layer without experts has no mean, but keeps its place.
    let finish = |sums: Vec<Option<(Tensor, Tensor)>>| -> Result<Vec<Tensor>> {
        let each = |sum: Option<(Tensor, Tensor)>| match sum {
            Some((sum, count)) => Ok(sum.broadcast_div(&count.maximum(1.0)?)?),
            None => Ok(Tensor::zeros((0, 0), DType::F32, model.transformer.device())?),
        };
        sums.into_iter().map(each).collect()
    };
    let MeanTaps { experts, heads, channels, expert_channels, mixtures, features, .. } = taps.taps;
    Ok(Means {
        experts: finish(experts)?,
        heads: finish(heads)?,
        channels: finish(channels)?,
        expert_channels: finish(expert_channels)?,
        mixtures: finish(mixtures)?,
        features: finish(features)?,
    })
}

/// Sums, and counts shaped to divide them.
struct MeanTaps<'a> {
    kinds: Vec<UnitKind>,
    experts: Vec<Option<(Tensor, Tensor)>>,
    heads: Vec<Option<(Tensor, Tensor)>>,
    channels: Vec<Option<(Tensor, Tensor)>>,
    expert_channels: Vec<Option<(Tensor, Tensor)>>,
    mixtures: Vec<Option<(Tensor, Tensor)>>,
    features: Vec<Option<(Tensor, Tensor)>>,
    dictionaries: &'a Dictionaries,
    /// Experts of each layer.
    widths: Vec<u32>,
}

fn add(place: Option<&mut Option<(Tensor, Tensor)>>, sum: Tensor, count: Tensor) -> Result<()> {
    let place = place.ok_or_else(|| ModelError::Request("a layer beyond the model's".into()))?;
    *place = Some(match place.take() {
        None => (sum, count),
        Some((s, c)) => ((s + sum)?, (c + count)?),
    });
    Ok(())
}

/// The sum of one expert's outputs as row `expert` of `[experts, hidden]`, and its count as row of
/// `[experts, 1]`.
fn by_expert(value: &Tensor, expert: u32, experts: usize) -> Result<(Tensor, Tensor)> {
    let hidden = value.dim(1)?;
    let id = Tensor::new(&[expert], value.device())?;
    let zeros = |width| Tensor::zeros((experts, width), value.dtype(), value.device());
    let sum = zeros(hidden)?.index_add(&id, &value.sum_keepdim(0)?, 0)?;
    Ok((sum, zeros(1)?.index_add(&id, &rows(value)?, 0)?))
}

/// Summed strengths of the features of a stream, `[1, features]`.
fn strengths(dictionary: &dyn Dictionary, x: &Tensor) -> Result<Tensor> {
    let mut sums = vec![0f32; dictionary.features()];
    for (feature, strength) in dictionary.strengths(&values(x)?).into_iter().flatten() {
        sums.get_mut(feature as usize).into_iter().for_each(|sum| *sum += strength);
    }
    Ok(Tensor::from_vec(sums, (1, dictionary.features()), x.device())?)
}

/// How many rows a value has, `[1, 1]`.
fn rows(value: &Tensor) -> Result<Tensor> {
    let count = Tensor::full(value.dim(0)? as f32, (1, 1), value.device())?;
    Ok(count.to_dtype(value.dtype())?)
}

impl MeanTaps<'_> {
    /// Whether a layer's experts together are asked for.
    fn mixes(&self, layer: usize) -> bool {
        let has_experts = self.widths.get(layer).is_some_and(|width| *width > 0);
        has_experts && self.kinds.contains(&UnitKind::Expert)
    }

    fn by_expert(&self, at: AtExpert<'_>, value: &Tensor) -> Result<(Tensor, Tensor)> {
        let width = self.widths.get(at.layer).copied().unwrap_or(0);
        by_expert(value, at.expert, width as usize)
    }
}

impl Taps for MeanTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::ExpertOut(at) if self.kinds.contains(&UnitKind::Expert) => {
                let (sum, count) = self.by_expert(at, value)?;
                add(self.experts.get_mut(at.layer), sum, count)?;
            }
            Site::ExpertChannels(at) if self.kinds.contains(&UnitKind::ExpertChannel) => {
                let (sum, count) = self.by_expert(at, value)?;
                add(self.expert_channels.get_mut(at.layer), sum, count)?;
            }
            Site::Channels { layer } if self.kinds.contains(&UnitKind::Channel) => {
                add(self.channels.get_mut(layer), value.sum_keepdim(0)?, rows(value)?)?;
            }
            Site::MlpOut { layer } if self.mixes(layer) => {
                add(self.mixtures.get_mut(layer), value.sum_keepdim(0)?, rows(value)?)?;
            }
            Site::Z { layer } if self.kinds.contains(&UnitKind::Head) => {
                add(self.heads.get_mut(layer), value.sum(0)?, rows(value)?)?;
            }
            Site::ResidPost { layer } if self.kinds.contains(&UnitKind::Feature) => {
                if let Some(dictionary) = self.dictionaries.of_layer(layer) {
                    let sum = strengths(dictionary.as_ref(), value)?;
                    // In f32 whatever the model computes in.
                    add(self.features.get_mut(layer), sum, rows(&value.to_dtype(DType::F32)?)?)?;
                }
            }
            _ => {}
        }
        Ok(None)
    }
}

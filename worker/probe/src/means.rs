//! Mean outputs of experts and heads over a prompt set: the baseline `mean`.

use crate::Result;
use crate::estimators::ProbeRequest;
use candle_core::{DType, Tensor};
use uspx_domain::{Baseline, UnitKind};
use uspx_model::batch::Sequence;
use uspx_model::taps::{Site, Taps};
use uspx_model::{LoadedModel, ModelError, batches};

/// Mean outputs, per layer.
pub(crate) struct Means {
    /// `[experts, hidden]`: over the tokens routed to the expert.
    experts: Vec<Tensor>,
    /// `[heads, head_dim]`: over all tokens.
    heads: Vec<Tensor>,
}

impl Means {
    /// Of an expert, `[1, hidden]`.
    pub(crate) fn of_expert(&self, layer: usize, expert: u32) -> Result<Tensor> {
        Ok(in_layer(&self.experts, layer)?.get(expert as usize)?.unsqueeze(0)?)
    }

    /// Of a layer's heads, `[1, heads, head_dim]`.
    pub(crate) fn of_heads(&self, layer: usize) -> Result<Tensor> {
        Ok(in_layer(&self.heads, layer)?.unsqueeze(0)?)
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
            means(request.model, &request.prompts.sequences, request.batch_tokens).map(Some)
        }
    }
}

/// One forward pass over `sequences`.
fn means(model: &LoadedModel, sequences: &[Sequence], batch_tokens: usize) -> Result<Means> {
    let shape = model.shape();
    let mut taps = MeanTaps {
        experts: vec![None; shape.layers.len()],
        heads: vec![None; shape.layers.len()],
        widths: shape.widths(UnitKind::Expert),
    };
    for (_, batch) in batches(sequences, batch_tokens)? {
        let frame = model.transformer.frame(&batch)?;
        model.transformer.forward(&batch, &frame, &mut taps)?;
    }
    // A layer without experts has no mean, but keeps its place.
    let finish = |sums: Vec<Option<(Tensor, Tensor)>>| -> Result<Vec<Tensor>> {
        let each = |sum: Option<(Tensor, Tensor)>| match sum {
            Some((sum, count)) => Ok(sum.broadcast_div(&count.maximum(1.0)?)?),
            None => Ok(Tensor::zeros((0, 0), DType::F32, model.transformer.device())?),
        };
        sums.into_iter().map(each).collect()
    };
    Ok(Means { experts: finish(taps.experts)?, heads: finish(taps.heads)? })
}

/// Sums, and counts shaped to divide them.
struct MeanTaps {
    experts: Vec<Option<(Tensor, Tensor)>>,
    heads: Vec<Option<(Tensor, Tensor)>>,
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
    let (count, hidden) = value.dims2()?;
    let id = Tensor::new(&[expert], value.device())?;
    let zeros = |width| Tensor::zeros((experts, width), value.dtype(), value.device());
    let sum = zeros(hidden)?.index_add(&id, &value.sum_keepdim(0)?, 0)?;
    let count = Tensor::full(count as f32, (1, 1), value.device())?.to_dtype(value.dtype())?;
    Ok((sum, zeros(1)?.index_add(&id, &count, 0)?))
}

impl Taps for MeanTaps {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::ExpertOut(at) => {
                let width = self.widths.get(at.layer).copied().unwrap_or(0) as usize;
                let (sum, count) = by_expert(value, at.expert, width)?;
                add(self.experts.get_mut(at.layer), sum, count)?;
            }
            Site::Z { layer } => {
                let count = Tensor::full(value.dim(0)? as f32, (1, 1), value.device())?
                    .to_dtype(DType::F32)?;
                add(self.heads.get_mut(layer), value.sum(0)?, count.to_dtype(value.dtype())?)?;
            }
            _ => {}
        }
        Ok(None)
    }
}

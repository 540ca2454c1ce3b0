//! Mean outputs of experts and heads over a prompt set: the baseline `mean`.

use crate::Result;
use candle_core::{DType, Tensor};
use uspx_model::batch::Sequence;
use uspx_model::taps::{Routing, Site, Taps};
use uspx_model::{LoadedModel, ModelError, batches};

/// Mean outputs, per layer.
pub(crate) struct Means {
    /// `[experts, hidden]`: over the tokens routed to the expert.
    pub experts: Vec<Tensor>,
    /// `[heads, head_dim]`: over all tokens.
    pub heads: Vec<Tensor>,
}

/// One forward pass over `sequences`.
pub(crate) fn means(model: &LoadedModel, sequences: &[Sequence], batch_tokens: usize) -> Result<Means> {
    let shape = model.shape();
    let mut taps = MeanTaps {
        experts: vec![None; shape.layers as usize],
        heads: vec![None; shape.layers as usize],
        width: shape.experts as usize,
    };
    for (_, batch) in batches(sequences, batch_tokens)? {
        let frame = model.transformer.frame(&batch)?;
        model.transformer.forward(&batch, &frame, &mut taps)?;
    }
    let finish = |sums: Vec<Option<(Tensor, Tensor)>>| -> Result<Vec<Tensor>> {
        sums.into_iter().flatten().map(|(sum, count)| Ok(sum.broadcast_div(&count.maximum(1.0)?)?)).collect()
    };
    Ok(Means { experts: finish(taps.experts)?, heads: finish(taps.heads)? })
}

/// Sums, and counts shaped to divide them.
struct MeanTaps {
    experts: Vec<Option<(Tensor, Tensor)>>,
    heads: Vec<Option<(Tensor, Tensor)>>,
    width: usize,
}

fn add(place: Option<&mut Option<(Tensor, Tensor)>>, sum: Tensor, count: Tensor) -> Result<()> {
    let place = place.ok_or_else(|| ModelError::Request("a layer beyond the model's".into()))?;
    *place = Some(match place.take() {
        None => (sum, count),
        Some((s, c)) => ((s + sum)?, (c + count)?),
    });
    Ok(())
}

fn by_expert(value: &Tensor, routing: &Routing, experts: usize) -> Result<(Tensor, Tensor)> {
    let (n, k, hidden) = value.dims3()?;
    let ids = Tensor::from_slice(&routing.chosen, n * k, value.device())?;
    let zeros = Tensor::zeros((experts, hidden), value.dtype(), value.device())?;
    let sum = zeros.index_add(&ids, &value.reshape((n * k, hidden))?, 0)?;
    let ones = Tensor::ones((n * k, 1), value.dtype(), value.device())?;
    let count = Tensor::zeros((experts, 1), value.dtype(), value.device())?.index_add(&ids, &ones, 0)?;
    Ok((sum, count))
}

impl Taps for MeanTaps {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::Experts { layer, routing } => {
                let (sum, count) = by_expert(value, routing, self.width)?;
                add(self.experts.get_mut(layer), sum, count)?;
            }
            Site::Heads { layer } => {
                let count = Tensor::full(value.dim(0)? as f32, (1, 1), value.device())?.to_dtype(DType::F32)?;
                add(self.heads.get_mut(layer), value.sum(0)?, count.to_dtype(value.dtype())?)?;
            }
            _ => {}
        }
        Ok(None)
    }
}

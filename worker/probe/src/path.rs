//! Inputs along a path to a prompt (EAP-IG-inputs; Hanna et al. 2024, arXiv 2403.17806): from its
//! mean embedding to its own, e_base + s/S·(e − e_base), s = 1 .. S. Where the loss is flat at the
//! prompt itself, the way there still has a slope.
//!
//! The S inputs of a prompt run as S sequences of one batch, the last of them the prompt itself.

use crate::Result;
use crate::estimators::ProbeRequest;
use candle_core::Tensor;
use uspx_model::batch::{Batch, Sequence};

/// The batch that has every step of some of the request's sequences, and its embedded tokens,
/// `[S · N, hidden]`; these `members` alone make up `batch`, N tokens.
pub(crate) fn path(
    request: &ProbeRequest<'_>,
    (members, batch): (&[usize], &Batch),
) -> Result<(Batch, Tensor)> {
    let sequences = &request.prompts.sequences;
    let own: Vec<&Sequence> = members.iter().filter_map(|i| sequences.get(*i)).collect();
    let embedded = request.model.transformer.embed(&batch.ids)?;
    let steps = request.steps;
    Ok((Batch::new(&own.repeat(steps))?, inputs(&embedded, batch, steps)?))
}

/// The inputs along the path, one after another: `[S · N, hidden]` from the embedded tokens of the
/// batch, `[N, hidden]`.
fn inputs(embedded: &Tensor, batch: &Batch, steps: usize) -> Result<Tensor> {
    let of_span = |span: &uspx_model::batch::Span| -> Result<Tensor> {
        let (start, rows) = (span.queries.start as usize, span.queries.len());
        let own = embedded.narrow(0, start, rows)?;
        Ok(own.mean_keepdim(0)?.broadcast_as(own.shape())?.contiguous()?)
    };
    let base = Tensor::cat(&batch.spans.iter().map(of_span).collect::<Result<Vec<_>>>()?, 0)?;
    let way = (embedded - &base)?;
    let at = |step: usize| -> Result<Tensor> {
        if step == steps {
            return Ok(embedded.clone());
        }
        Ok((&base + (&way * (step as f64 / steps as f64))?)?)
    };
    Ok(Tensor::cat(&(1..=steps).map(at).collect::<Result<Vec<_>>>()?, 0)?)
}

/// The mean over the steps, of which each has so many rows: `[S · rows, ..]` to `[rows, ..]`.
pub(crate) fn mean_step(x: &Tensor, rows: usize) -> Result<Tensor> {
    let steps = x.dim(0)?.checked_div(rows).unwrap_or(0);
    if steps <= 1 {
        return Ok(x.clone());
    }
    let mut shape = x.dims().to_vec();
    if let Some(first) = shape.first_mut() {
        *first = rows;
    }
    shape.insert(0, steps);
    Ok(x.reshape(shape)?.mean(0)?)
}

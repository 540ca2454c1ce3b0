//! The gradients of a batch's loss: forward, keeping every layer's input, then backward layer by
//! layer.

use crate::Result;
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use uspx_model::batch::Batch;
use uspx_model::taps::{Site, Taps};
use uspx_model::transformer::Transformer;

/// Differentiates the summed loss of the batch's responses, from its embedded tokens `start`,
/// `[N, hidden]`, on. `tapped` makes the taps of a layer from the gradient with respect to its
/// output, `[N, hidden]`; `found` gets them again with the layer's gradients.
pub(crate) fn differentiate<T: Taps>(
    transformer: &Transformer,
    batch: &Batch,
    start: Tensor,
    tapped: impl FnMut(&Tensor) -> Result<T>,
    found: impl FnMut(&T, &GradStore) -> Result<()>,
) -> Result<()> {
    let frame = transformer.frame(batch)?;
    let mut boundaries = transformer.spool();
    let mut keep = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        if let Site::ResidPre { .. } = site {
            boundaries.push(value)?;
        }
        Ok(None)
    };
    let x = transformer.run(0..transformer.layers(), start, &frame, None, &mut keep)?;
    let loss = |x: &Tensor| Ok(transformer.response_nll(x, batch)?.sum_all()?);
    transformer.backward((&x, &frame, &boundaries), loss, tapped, found)
}

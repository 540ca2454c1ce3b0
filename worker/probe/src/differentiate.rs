//! The gradients of a batch's loss: forward, keeping every layer's input, then backward layer by
//! layer. In place of derivatives layers may carry back coefficients of relevance.

use crate::Result;
use crate::estimators::ProbeRequest;
use crate::within::Within;
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use uspx_model::Spool;
use uspx_model::batch::Batch;
use uspx_model::layers::frame::Frame;
use uspx_model::taps::{Backward, Site, Taps};

/// Differentiates the summed loss of the batch's responses, from its embedded tokens `start`,
/// `[N, hidden]`, on; `back` is what layers and the last norm carry back. `tapped` makes the taps of a layer from the gradient with respect to its
/// output, `[N, hidden]`; `found` gets them again with the layer's gradients.
pub(crate) fn differentiate<T: Taps>(
    request: &ProbeRequest<'_>,
    (batch, back): (&Batch, Backward),
    start: Tensor,
    tapped: impl FnMut(&Tensor) -> Result<T>,
    found: impl FnMut(&T, &GradStore) -> Result<()>,
) -> Result<()> {
    Run::forward(request, batch, start)?.backward(back, tapped, found)
}

/// A batch that has run, and may be differentiated several times.
pub(crate) struct Run<'a> {
    request: &'a ProbeRequest<'a>,
    batch: &'a Batch,
    frame: Frame,
    boundaries: Spool,
    x: Tensor,
}

impl<'a> Run<'a> {
    /// Runs it from its embedded tokens on, `[N, hidden]`.
    pub(crate) fn forward(
        request: &'a ProbeRequest<'a>,
        batch: &'a Batch,
        start: Tensor,
    ) -> Result<Self> {
        let transformer = &request.model.transformer;
        let frame = transformer.frame(batch)?;
        let mut boundaries = transformer.spool();
        let keep = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
            if let Site::ResidPre { .. } = site {
                boundaries.push(value)?;
            }
            Ok(None)
        };
        let mut keep = Within::new(request, keep);
        let x = transformer.run(0..transformer.layers(), start, &frame, None, &mut keep)?;
        drop(keep);
        Ok(Self { request, batch, frame, boundaries, x })
    }

    /// See [`differentiate`].
    pub(crate) fn backward<T: Taps>(
        &self,
        back: Backward,
        mut tapped: impl FnMut(&Tensor) -> Result<T>,
        mut found: impl FnMut(&T, &GradStore) -> Result<()>,
    ) -> Result<()> {
        let Self { request, batch, frame, boundaries, x } = self;
        let transformer = &request.model.transformer;
        let loss = |x: &Tensor| Ok(transformer.response_nll_by(back, x, batch)?.sum_all()?);
        let tapped = |gradient: &Tensor| Ok(Within::new(request, tapped(gradient)?).carrying(back));
        let found = |taps: &Within<T>, gradients: &GradStore| found(&taps.taps, gradients);
        transformer.backward((x, frame, boundaries), loss, tapped, found)
    }
}

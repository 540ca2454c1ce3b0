//! The dense gated MLP: down(silu(gate(x)) · up(x)).

use crate::Result;
use crate::layers::gated::swiglu;
use crate::layers::linear::Linear;
use crate::taps::{Projection, Site, Taps, tap};
use candle_core::Tensor;

/// One layer's dense MLP.
#[derive(Debug, Clone)]
pub struct DenseMlp {
    /// Gate projection.
    pub gate: Linear,
    /// Up projection.
    pub up: Linear,
    /// Down projection.
    pub down: Linear,
}

impl DenseMlp {
    /// `[N, hidden]` to `[N, hidden]`.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn forward(&self, layer: usize, x: &Tensor, taps: &mut dyn Taps) -> Result<Tensor> {
        let x = tap(taps, Site::LinearInput { layer, projection: Projection::Gate }, x.clone())?;
        let channels = self.channels(&x, taps)?;
        let channels = tap(taps, Site::Channels { layer }, channels)?;
        let channels =
            tap(taps, Site::LinearInput { layer, projection: Projection::Down }, channels)?;
        self.down.forward(&channels)
    }

    /// What the gate lets through of the up projection, `[N, inner]`, from what both are given.
    pub(crate) fn channels(&self, x: &Tensor, taps: &dyn Taps) -> Result<Tensor> {
        swiglu(&self.gate.forward(x)?, &self.up.forward(x)?, taps.backward())
    }
}

//! Measuring inside a masked model: what is cut already acts before the taps of the probe. What
//! layers carry back is said here too, for the layers and the loss alike.

use crate::Result;
use crate::estimators::ProbeRequest;
use candle_core::Tensor;
use uspx_model::cuts::CutTaps;
use uspx_model::taps::{Backward, Site, Taps};

/// The taps of a probe, behind the cut that its request measures within.
pub(crate) struct Within<T> {
    cut: Option<CutTaps>,
    back: Backward,
    /// The probe's own.
    pub(crate) taps: T,
}

impl<T> Within<T> {
    /// `taps`, inside what `request` measures within.
    pub(crate) fn new(request: &ProbeRequest<'_>, taps: T) -> Self {
        Self { cut: request.within.cloned(), back: Backward::Gradient, taps }
    }

    /// The same, where layers carry back something else.
    pub(crate) fn carrying(self, back: Backward) -> Self {
        Self { back, ..self }
    }
}

impl<T: Taps> Taps for Within<T> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match &mut self.cut {
            Some(cut) => (cut, &mut self.taps).at(site, value),
            None => self.taps.at(site, value),
        }
    }

    fn wants_pattern(&self) -> bool {
        self.taps.wants_pattern()
    }

    fn wants_next(&self) -> bool {
        self.taps.wants_next()
    }

    fn backward(&self) -> Backward {
        self.back
    }
}

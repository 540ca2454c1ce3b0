//! Trace: what one forward pass shows of every unit, over the positions that hold response tokens.

use super::{Measure, ProbeRequest};
use crate::Result;
use crate::trace::{More, trace};
use uspx_domain::{Deposit, Estimator};
use uspx_model::Progress;

/// Per prompt, sums of the statistics of `crate::statistics` of each unit.
pub(super) struct Trace;

impl Measure for Trace {
    fn estimator(&self) -> Estimator {
        Estimator::TRACE
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        Ok(trace(request, More::default(), progress)?.responses)
    }
}

//! How large a head's output is.

use super::OfToken;
use uspx_domain::Statistic;

/// ‖o‖, before the output projection.
pub(super) const HEAD_NORM: OfToken<f64> =
    OfToken { statistic: Statistic::HEAD_NORM, of: |norm| *norm };

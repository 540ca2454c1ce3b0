//! How much a head puts out.

use super::OfToken;
use uspx_domain::Statistic;

/// ‖o‖², before the output projection, from ‖o‖.
pub(super) const HEAD_ENERGY: OfToken<f64> =
    OfToken { statistic: Statistic::HEAD_ENERGY, of: |norm| norm * norm };

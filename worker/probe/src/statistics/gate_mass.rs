//! How much weight the router gives an expert.

use super::{OfToken, Routed};
use uspx_domain::Statistic;

/// g.
pub(super) const GATE_MASS: OfToken<Routed> =
    OfToken { statistic: Statistic::GATE_MASS, of: |r| r.gate };

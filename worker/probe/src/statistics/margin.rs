//! How surely the router takes an expert.

use super::{OfToken, Routed};
use uspx_domain::Statistic;

/// Its logit less that of the first expert that was not taken.
pub(super) const MARGIN: OfToken<Routed> =
    OfToken { statistic: Statistic::MARGIN, of: |r| r.margin };

//! How often an expert is routed to.

use super::{OfToken, Routed};
use uspx_domain::Statistic;

/// One for every token.
pub(super) const COUNT: OfToken<Routed> = OfToken { statistic: Statistic::COUNT, of: |_| 1.0 };

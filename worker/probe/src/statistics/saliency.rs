//! How much an expert adds to the stream (REAP, Lasby et al. 2025, before it is divided by the
//! count).

use super::{OfToken, Routed};
use uspx_domain::Statistic;

/// g‖f‖.
pub(super) const SALIENCY: OfToken<Routed> =
    OfToken { statistic: Statistic::SALIENCY, of: |r| r.gate * r.norm };

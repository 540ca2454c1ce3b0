//! How much an expert adds where its layer turns the stream (EASY-EP, Dong et al. 2025).

use super::{OfToken, Routed};
use uspx_domain::Statistic;

/// g‖f‖·max(0, 1 − cos(h, h + MoE(h))).
pub(super) const EASY_EP: OfToken<Routed> =
    OfToken { statistic: Statistic::EASY_EP, of: |r| r.gate * r.norm * r.turned };

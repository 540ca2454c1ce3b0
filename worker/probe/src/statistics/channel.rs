//! How large a channel's activation is. A trace adds these up in tensors: channels are too many to
//! be looked at one by one.

use super::OfToken;
use uspx_domain::Statistic;

/// |a|.
pub(super) const CHANNEL_SIZE: OfToken<f64> =
    OfToken { statistic: Statistic::CHANNEL_SIZE, of: |a| a.abs() };

/// a².
pub(super) const CHANNEL_ENERGY: OfToken<f64> =
    OfToken { statistic: Statistic::CHANNEL_ENERGY, of: |a| a * a };

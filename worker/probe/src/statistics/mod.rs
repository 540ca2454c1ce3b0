//! What a trace adds up of each token, one statistic a file. Its row stands in the domain's table
//! of statistics.

mod channel;
mod count;
mod easy_ep;
mod gate_mass;
mod head_energy;
mod head_norm;
mod margin;
mod saliency;

use uspx_domain::Statistic;

/// What one forward pass shows of an expert that a token was routed to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routed {
    /// g: the gate's weight.
    pub gate: f64,
    /// ‖f‖: the norm of the expert's output.
    pub norm: f64,
    /// max(0, 1 − cos(h, h + MoE(h))): how far the layer turned the residual stream h.
    pub turned: f64,
    /// By how much its logit lies above that of the first expert that was not taken.
    pub margin: f64,
}

/// A statistic of a unit, and what a token adds to it.
pub(crate) struct OfToken<T> {
    /// Which.
    pub statistic: Statistic,
    /// A token's addend.
    pub of: fn(&T) -> f64,
}

/// The statistics of experts.
pub(crate) const EXPERT: &[OfToken<Routed>] =
    &[count::COUNT, gate_mass::GATE_MASS, saliency::SALIENCY, easy_ep::EASY_EP, margin::MARGIN];

/// The statistics of heads, from the norm of a head's output.
pub(crate) const HEAD: &[OfToken<f64>] = &[head_norm::HEAD_NORM, head_energy::HEAD_ENERGY];

/// The statistics of channels, from a channel's activation.
pub(crate) const CHANNEL: &[OfToken<f64>] = &[channel::CHANNEL_SIZE, channel::CHANNEL_ENERGY];

/// Which they are.
pub(crate) fn named<T>(list: &[OfToken<T>]) -> Vec<Statistic> {
    list.iter().map(|s| s.statistic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{Estimator, StatisticRow, UnitKind};

    #[test]
    fn a_trace_adds_up_what_its_row_promises() {
        let all = [named(EXPERT), named(HEAD), named(CHANNEL)].concat();
        assert_eq!(all, Estimator::TRACE.row().statistics);
    }

    #[test]
    fn each_is_the_formula_of_its_method() {
        let routed = Routed { gate: 0.5, norm: 4.0, turned: 0.25, margin: 1.5 };
        let values: Vec<f64> = EXPERT.iter().map(|s| (s.of)(&routed)).collect();
        assert_eq!(values, [1.0, 0.5, 2.0, 0.5, 1.5]);
        let of = |list: &[OfToken<f64>], x| list.iter().map(|s| (s.of)(&x)).collect::<Vec<_>>();
        assert_eq!((of(HEAD, 3.0), of(CHANNEL, -3.0)), (vec![3.0, 9.0], vec![3.0, 9.0]));
    }

    /// What adding a statistic takes: its row in the domain, and its formula here.
    #[test]
    fn a_statistic_is_one_file_and_one_row() {
        static ROW: StatisticRow = StatisticRow {
            name: "gate_squared",
            kinds: &[UnitKind::Expert],
            signed: false,
            is_effect: false,
            rank: None,
            methods: &[],
        };
        let example = OfToken::<Routed> { statistic: Statistic::of(&ROW), of: |r| r.gate * r.gate };
        let routed = Routed { gate: 0.5, norm: 4.0, turned: 0.25, margin: 1.5 };
        let sum: f64 = [routed, routed].iter().map(example.of).sum();
        assert_eq!((example.statistic.name(), sum), ("gate_squared", 0.5));
    }
}

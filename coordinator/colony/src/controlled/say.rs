//! How much of what a prompt says counts.

/// What is summed over prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// A prompt's nats: their sum is by how much the loss of all prompts rises.
    Whole,
    /// Its nats to the power ¾, nothing where they are not above zero: a unit that many prompts need a little comes before
    /// one that few need much. What a mask costs is not the sum of what its units cost one by one, for a prompt that has
    /// lost its answer has little more to lose; and few prompts tell this sum better than one that the largest of them
    /// make. On recorded effects of the shipped teacher masks by it lose less at a half and at a quarter of the experts
    /// kept (`make bench-colony`).
    Typical,
}

impl Say {
    /// The same for prompts of so many response tokens on average.
    pub(super) fn on(self, mean_tokens: f64) -> Said {
        match self {
            Self::Whole => Said::Whole,
            Self::Typical => Said::Typical { scale: mean_tokens.sqrt().sqrt() },
        }
    }
}

/// How a prompt's value is said.
#[derive(Debug, Clone, Copy)]
pub(super) enum Said {
    Whole,
    /// By the fourth root of the mean length, which makes the sum by tokens the effect per token to the power ¾ where
    /// prompts are alike.
    Typical {
        scale: f64,
    },
}

impl Said {
    /// A prompt's share of a sum that goes by tokens; `nats` is its value, summed over its response tokens.
    pub(super) fn of(self, nats: f64) -> f64 {
        match self {
            Self::Whole => nats,
            Self::Typical { scale } if nats > 0.0 => scale * (nats * nats.sqrt()).sqrt(),
            Self::Typical { .. } => 0.0,
        }
    }
}

/// Steps of Newton's method for a cube root. From a start that is too large each takes a third off, or more.
const STEPS: u32 = 200;

/// The *typical* effect in nats per token of which `mean` is the power ¾: its 4/3 (a power mean of order ¾).
pub(crate) fn told(mean: f64) -> f64 {
    if mean <= 0.0 {
        return 0.0;
    }
    let start = if mean > 1.0 { mean } else { 1.0 };
    let cube_root = (0..STEPS).fold(start, |root, _| (2.0 * root + mean / (root * root)) / 3.0);
    mean * cube_root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_that_need_it_a_little_come_before_one_that_needs_it_much() {
        let sum = |say: Say, nats: [f64; 4]| nats.iter().map(|n| say.on(4.0).of(*n)).sum::<f64>();
        let (many, one) = ([1.0; 4], [5.0, 0.0, 0.0, -1e-3]);
        assert!(sum(Say::Whole, one) > sum(Say::Whole, many));
        assert!(sum(Say::Typical, one) < sum(Say::Typical, many));
        assert!((sum(Say::Typical, many) / 16.0 - 0.25f64.powf(0.75)).abs() < 1e-12);
    }

    /// Against the library's power.
    #[test]
    fn it_is_told_in_nats_per_token() {
        for nats in [1e-9, 1e-4, 0.02, 0.25, 1.0, 3.7, 900.0] {
            let mean = Say::Typical.on(8.0).of(nats * 8.0) / 8.0;
            assert!((mean - nats.powf(0.75)).abs() < 1e-9 * mean.max(1.0), "{nats}");
            assert!((told(mean) / nats - 1.0).abs() < 1e-9, "{nats}: {}", told(mean));
        }
        assert_eq!((told(0.0), told(-0.5)), (0.0, 0.0));
    }
}

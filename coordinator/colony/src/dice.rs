//! Seeded randomness that is the same on every machine: ChaCha8, integers and IEEE arithmetic only.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// 2^-53: the step between the floats that [`Dice::unit`] gives.
const STEP: f64 = 1.0 / 9_007_199_254_740_992.0;

/// A stream of random numbers for one purpose.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of one purpose (a short name) and its number, for example an epoch, under the
    /// campaign's seed.
    pub fn new(seed: u64, purpose: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes()).update(purpose.as_bytes());
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// An integer below `n`, without bias (Lemire's rejection); 0 where `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        let floor = n.wrapping_neg().checked_rem(n).unwrap_or(0);
        loop {
            let product = u64::from(self.0.next_u32()) * u64::from(n);
            if product as u32 >= floor {
                return (product >> 32) as u32;
            }
        }
    }

    /// A float in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * STEP
    }

    /// Nearly a standard normal: twelve uniforms less 6 (Irwin–Hall), because exact methods need
    /// `ln` and `cos`.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Shuffles in place (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }

    /// Up to `count` different places of `weights`, each drawn in proportion to what is left of the
    /// weights.
    pub fn draw(&mut self, weights: &[f64], count: usize) -> Vec<usize> {
        let mut left: Vec<(usize, f64)> =
            weights.iter().copied().enumerate().filter(|(_, w)| *w > 0.0).collect();
        let mut drawn = Vec::new();
        while drawn.len() < count && !left.is_empty() {
            let at = pick(&left, self.unit());
            drawn.push(left.swap_remove(at).0);
        }
        drawn
    }
}

/// The place where the running sum of weights passes `share` of the whole.
fn pick(items: &[(usize, f64)], share: f64) -> usize {
    let mut rest = share * items.iter().map(|(_, w)| w).sum::<f64>();
    for (at, (_, weight)) in items.iter().enumerate() {
        rest -= weight;
        if rest < 0.0 {
            return at;
        }
    }
    items.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_fixed_for_ever() {
        let mut dice = Dice::new(7, "test", 3);
        let first: Vec<u32> = (0..4).map(|_| dice.below(1000)).collect();
        let mut again = Dice::new(7, "test", 3);
        assert_eq!(first, (0..4).map(|_| again.below(1000)).collect::<Vec<_>>());
        let mut other = Dice::new(7, "test", 4);
        assert_ne!(first, (0..4).map(|_| other.below(1000)).collect::<Vec<_>>());
    }

    #[test]
    fn moments_are_those_of_a_normal() {
        let mut dice = Dice::new(1, "normal", 0);
        let draws: Vec<f64> = (0..20_000).map(|_| dice.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }

    #[test]
    fn draws_are_different_and_follow_the_weights() {
        let mut dice = Dice::new(1, "draw", 0);
        let mut first = [0u32; 3];
        for _ in 0..4000 {
            let drawn = dice.draw(&[1.0, 0.0, 3.0], 3);
            assert_eq!(drawn.len(), 2);
            first[drawn[0]] += 1;
        }
        assert_eq!(first[1], 0);
        assert!((2800..3200).contains(&first[2]), "{first:?}");
    }
}

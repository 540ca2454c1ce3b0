//! Differences of losses on the same prompts, with bootstrap intervals: prompts are drawn anew, and
//! each draw counts for both sides (Efron 1979; pooled over tokens, as losses are).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;

/// Losses of single prompts: what was lost, and in how many units (tokens, bytes).
pub type Losses = Vec<(f64, f64)>;

/// How often prompts are drawn.
const DRAWS: usize = 2000;

/// A difference per unit, and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The difference.
    pub mean: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The mean over pairs of (a − b), each pair on prompts of its own; pairs on equally many prompts
/// are drawn together, for they are taken to be the same prompts.
pub fn difference(pairs: &[(&Losses, &Losses)]) -> Difference {
    let of = |draw: Option<u64>| {
        let each = pairs.iter().map(|(a, b)| one(a, b, draw));
        each.sum::<f64>() / pairs.len().max(1) as f64
    };
    let mut drawn: Vec<f64> = (0..DRAWS as u64).map(|draw| of(Some(draw))).collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * (DRAWS - 1) as f64).round() as usize;
        drawn.get(place).copied().unwrap_or(f64::NAN)
    };
    Difference { mean: of(None), low: at(0.025), high: at(0.975) }
}

/// A pair's difference, on the prompts as they are or on a draw of them.
fn one(a: &Losses, b: &Losses, draw: Option<u64>) -> f64 {
    let n = a.len().min(b.len());
    let mut random = ChaCha8Rng::seed_from_u64(draw.unwrap_or(0));
    let (mut nats, mut tokens) = (0.0, 0.0);
    for place in 0..n {
        let at = match draw {
            Some(_) => (random.next_u64() % n as u64) as usize,
            None => place,
        };
        if let (Some((a, t)), Some((b, _))) = (a.get(at), b.get(at)) {
            nats += a - b;
            tokens += t;
        }
    }
    nats / tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the formula for the error of a ratio of sums.
    #[test]
    fn the_interval_is_that_of_the_pooled_difference() {
        let mut random = ChaCha8Rng::seed_from_u64(9);
        let mut unit = || (random.next_u32() as f64) / f64::from(u32::MAX);
        let a: Losses = (0..400).map(|i| (1.0 + unit() * 4.0, f64::from(3 + i % 5))).collect();
        let b: Losses = a.iter().map(|(_, t)| (unit() * 4.0, *t)).collect();
        let found = difference(&[(&a, &b)]);
        let tokens: f64 = a.iter().map(|(_, t)| t).sum();
        let mean = a.iter().zip(&b).map(|((a, _), (b, _))| a - b).sum::<f64>() / tokens;
        let squares: f64 =
            a.iter().zip(&b).map(|((a, t), (b, _))| (a - b - mean * t).powi(2)).sum();
        let error = squares.sqrt() / tokens;
        assert!((found.mean - mean).abs() < 1e-12);
        for (got, want) in [(found.low, mean - 1.96 * error), (found.high, mean + 1.96 * error)] {
            assert!((got - want).abs() < 0.2 * error, "{got} {want} {error}");
        }
    }

    #[test]
    fn the_same_losses_do_not_differ_and_pairs_are_averaged() {
        let (a, b): (Losses, Losses) = (vec![(2.0, 1.0); 8], vec![(1.0, 1.0); 8]);
        let same = difference(&[(&a, &a)]);
        assert_eq!((same.mean, same.low, same.high), (0.0, 0.0, 0.0));
        assert_eq!(difference(&[(&a, &b), (&b, &b)]).mean, 0.5);
    }
}

//! Percentile intervals of any figure over prompts (Efron & Tibshirani 1993, ch. 13): prompts are
//! drawn anew with replacement, and every draw counts for all figures, so that these are paired.

use crate::Dice;
use crate::gate::quantile;
use serde::Serialize;

/// How often each prompt counts, `[draws][prompts]`.
#[derive(Debug, Clone)]
pub struct Draws(Vec<Vec<u32>>);

/// A figure and its two-sided 95 % interval. Not a number where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// On the prompts as they are.
    pub value: f64,
    /// 2.5 % of the draws lie below.
    pub low: f64,
    /// And as many above.
    pub high: f64,
}

impl Draws {
    /// So many draws of as many prompts as there are.
    pub fn new(prompts: usize, draws: usize, dice: &mut Dice) -> Self {
        let mut draw = || {
            let mut counts = vec![0; prompts];
            for _ in 0..prompts {
                let at = dice.below(prompts as u32) as usize;
                counts.get_mut(at).into_iter().for_each(|count| *count += 1);
            }
            counts
        };
        Self((0..draws).map(|_| draw()).collect())
    }

    /// Draw by draw.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// `value` with the interval of what `figure` is on each draw.
    pub fn estimate(&self, value: f64, figure: impl FnMut(&[u32]) -> f64) -> Estimate {
        Estimate::of(value, self.iter().map(figure).collect())
    }
}

impl Estimate {
    /// A figure that was `drawn` so on the draws. Those on which it is not known say nothing.
    pub fn of(value: f64, mut drawn: Vec<f64>) -> Self {
        drawn.retain(|v| v.is_finite());
        drawn.sort_by(f64::total_cmp);
        let at = |millionths| quantile(&drawn, millionths).unwrap_or(f64::NAN);
        Self { value, low: at(25_000), high: at(975_000) }
    }
}

/// Σ nats, each prompt counted as often as it was drawn, or once.
pub(crate) fn pooled(nats: &[f32], counts: Option<&[u32]>) -> f64 {
    let nats = nats.iter().copied().map(f64::from);
    match counts {
        None => nats.sum(),
        Some(counts) => nats.zip(counts).map(|(nats, count)| nats * f64::from(*count)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_draw_has_as_many_prompts_and_each_comes_as_often_as_another() {
        let draws = Draws::new(20, 2000, &mut Dice::new(1, "draws", 0));
        assert!(draws.iter().all(|counts| counts.iter().sum::<u32>() == 20));
        let of = |at: usize| draws.iter().map(|counts| f64::from(counts[at])).sum::<f64>() / 2000.0;
        assert!((0..20).all(|at| (of(at) - 1.0).abs() < 0.1));
        assert_eq!(Draws::new(0, 3, &mut Dice::new(1, "draws", 0)).iter().count(), 3);
    }

    /// Against the normal interval of a mean.
    #[test]
    fn the_interval_of_a_mean_is_the_normal_one() {
        let mut dice = Dice::new(3, "values", 0);
        let values: Vec<f32> = (0..400).map(|_| 5.0 + dice.normal() as f32).collect();
        let mean = pooled(&values, None) / 400.0;
        let square = |v: &f32| (f64::from(*v) - mean).powi(2);
        let half = 1.96 * (values.iter().map(square).sum::<f64>() / 400.0 / 400.0).sqrt();
        let draws = Draws::new(400, 4000, &mut dice);
        let found = draws.estimate(mean, |counts| pooled(&values, Some(counts)) / 400.0);
        for (got, want) in [(found.low, mean - half), (found.high, mean + half)] {
            assert!((got - want).abs() < 0.1 * half, "{got} {want}");
        }
    }

    #[test]
    fn what_is_not_known_on_any_draw_has_no_interval() {
        let found = Estimate::of(1.0, vec![f64::NAN; 4]);
        assert!(found.value == 1.0 && found.low.is_nan() && found.high.is_nan());
        let some = Estimate::of(1.0, vec![f64::NAN, 2.0, f64::INFINITY]);
        assert_eq!((some.low, some.high), (2.0, 2.0));
    }
}

//! Intervals of pooled figures over prompts: the percentile bootstrap (Efron & Tibshirani 1993, ch.
//! 13).

use crate::gate::quantile;
use crate::state::Pair;
use crate::{CampaignConfig, Dice};

/// The two-sided 95 % interval of Σ value ÷ Σ weight, the prompts being drawn anew; none where
/// there is nothing to draw.
pub fn interval(rows: &[(f64, f64)], dice: &mut Dice, resamples: u32) -> Option<(f64, f64)> {
    let mut draws: Vec<f64> = (0..resamples).filter_map(|_| resample(rows, dice)).collect();
    draws.sort_by(f64::total_cmp);
    Some((quantile(&draws, 25_000)?, quantile(&draws, 975_000)?))
}

/// That of the rise of the loss under a mask, in nats per response token.
pub fn of_rise<'a>(
    pairs: impl IntoIterator<Item = &'a Pair>,
    campaign: &CampaignConfig,
    purpose: &str,
) -> Option<(f64, f64)> {
    let row = |p: &Pair| ((p.cut - p.clean).to_f64(), f64::from(p.tokens));
    let rows: Vec<(f64, f64)> = pairs.into_iter().map(row).collect();
    interval(&rows, &mut Dice::new(campaign.seed, purpose, 0), campaign.distil.resamples)
}

fn resample(rows: &[(f64, f64)], dice: &mut Dice) -> Option<f64> {
    let (mut value, mut weight) = (0.0, 0.0);
    for _ in rows {
        let (v, w) = rows.get(dice.below(rows.len() as u32) as usize)?;
        (value, weight) = (value + v, weight + w);
    }
    (weight > 0.0).then(|| value / weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the normal interval of a mean.
    #[test]
    fn the_interval_of_equal_weights_is_that_of_a_mean() {
        let mut dice = Dice::new(3, "rows", 0);
        let rows: Vec<(f64, f64)> = (0..400).map(|_| (5.0 + dice.normal(), 1.0)).collect();
        let mean = rows.iter().map(|r| r.0).sum::<f64>() / 400.0;
        let spread = rows.iter().map(|r| (r.0 - mean) * (r.0 - mean)).sum::<f64>() / 400.0;
        let half = 1.96 * (spread / 400.0).sqrt();
        let (low, high) = interval(&rows, &mut Dice::new(1, "t", 0), 4000).unwrap();
        assert!((low - (mean - half)).abs() < 0.1 * half, "{low} {}", mean - half);
        assert!((high - (mean + half)).abs() < 0.1 * half, "{high} {}", mean + half);
        assert_eq!(interval(&[], &mut Dice::new(1, "t", 0), 10), None);
    }
}

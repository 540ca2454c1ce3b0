//! The prediction of effects from cheap scores, fitted to those that are known, and what it makes of them.

use super::rows::{Beside, Row, Tried};
use crate::combine::{Score, solve};

/// The doubt of a prediction beforehand, as a share of its square: about what recorded effects of the shipped teachers
/// have. It counts as much as so many units whose own effects are beyond doubt.
const USUAL_DOUBT: f64 = 1.0 / 3.0;
const USUAL_UNITS: f64 = 8.0;
/// The least.
const LEAST_DOUBT: f64 = 0.05;

/// One slope for all units: what a unit's few prompts say of its own is mostly noise.
pub(super) fn slope<'a>(beside: impl Iterator<Item = &'a Beside>) -> f64 {
    let (both, own) = beside.fold((0.0, 0.0), |(b, o), s| (b + s.both, o + s.own));
    if own > 0.0 { both / own } else { 0.0 }
}

/// How much larger the variance of an effect is than that of the unit's control, once the control's part is taken
/// out: one number for all units, whatever their size.
pub(super) fn noise(rows: &[Row], (slope, size): (f64, f64)) -> f64 {
    let (mut left, mut control) = (0.0, 0.0);
    for (row, s) in rows.iter().filter_map(|row| Some((row, row.beside.as_ref()?))) {
        let weight = weight(row, size);
        left += weight * (s.effect - 2.0 * slope * s.both + slope * slope * s.own);
        control += weight * row.spread * s.prompts * s.tokens * s.tokens;
    }
    if control > 0.0 && left > 0.0 { left / control } else { 1.0 }
}

/// What a unit's squares count: large ones are as far off as they are large. `size` is that of the unit in the middle,
/// by its control.
fn weight(row: &Row, size: f64) -> f64 {
    let own = row.predictors[0];
    let square = own * own + size * size;
    if square > 0.0 { 1.0 / square } else { 0.0 }
}

/// The prediction of effects from cheap scores, and its doubt.
pub(super) struct Fit {
    weights: [f64; 2],
    /// Doubt as a share of the prediction's square.
    doubt: f64,
    /// The median prediction: what is smaller is doubted as if it were that large.
    middle: f64,
}

impl Fit {
    /// By least squares, each unit weighted by the square of its size.
    pub(super) fn of(rows: &[Row], tried: &[(&Row, &Tried)], (noise, size): (f64, f64)) -> Self {
        let weights = weights(tried, |row| weight(row, size));
        let blank = Self { weights, doubt: LEAST_DOUBT, middle: 0.0 };
        let middle = median(rows.iter().map(|row| blank.predicted(row)).collect());
        let (mut missed, mut squares, mut telling) = (0.0, 0.0, 0.0);
        for (row, tried) in tried {
            let (guess, weight) = (blank.predicted(row), weight(row, size));
            let (miss, square) = (tried.effect - guess, guess * guess + middle * middle);
            let variance = row.variance(tried, noise);
            missed += weight * (miss * miss - variance);
            squares += weight * square;
            let own =
                USUAL_DOUBT * square / (USUAL_DOUBT * square + variance).max(f64::MIN_POSITIVE);
            telling += own * own;
        }
        let found = if squares > 0.0 { missed / squares } else { USUAL_DOUBT };
        let doubt = (telling * found + USUAL_UNITS * USUAL_DOUBT) / (telling + USUAL_UNITS);
        Self { weights, doubt: if doubt > LEAST_DOUBT { doubt } else { LEAST_DOUBT }, middle }
    }

    fn predicted(&self, row: &Row) -> f64 {
        let [a, b] = self.weights;
        let [x, y] = row.predictors;
        a * x + b * y
    }

    /// The effect drawn towards the prediction.
    pub(super) fn posterior(&self, row: &Row, noise: f64) -> Score {
        let guess = self.predicted(row);
        let doubt = self.doubt * (guess * guess + self.middle * self.middle);
        let Some(tried) = &row.tried else {
            return Score { mean: guess, error: doubt.sqrt(), effective: 0.0 };
        };
        let (effect, effective) = (tried.effect, tried.effective);
        let variance = row.variance(tried, noise);
        if variance + doubt <= 0.0 {
            return Score { mean: effect, error: 0.0, effective };
        }
        let own = doubt / (doubt + variance);
        let mean = own * effect + (1.0 - own) * guess;
        Score { mean, error: (own * variance).sqrt(), effective }
    }
}

/// No predictor counts against a unit: one that would is left out.
fn weights(tried: &[(&Row, &Tried)], weight: impl Fn(&Row) -> f64) -> [f64; 2] {
    let sum = |of: &dyn Fn(&Row, &Tried) -> f64| {
        tried.iter().map(|(row, t)| weight(row) * of(row, t)).sum::<f64>()
    };
    let xx = sum(&|row, _| row.predictors[0] * row.predictors[0]);
    let xy = sum(&|row, _| row.predictors[0] * row.predictors[1]);
    let yy = sum(&|row, _| row.predictors[1] * row.predictors[1]);
    let xe = sum(&|row, t| row.predictors[0] * t.effect);
    let ye = sum(&|row, t| row.predictors[1] * t.effect);
    let both = solve(vec![vec![xx, xy, xe], vec![xy, yy, ye]]);
    let alone = |square: f64, with: f64| {
        let slope = if square > 0.0 { with / square } else { 0.0 };
        if slope > 0.0 { slope } else { 0.0 }
    };
    match both.as_slice() {
        [a, b] if *a >= 0.0 && *b >= 0.0 => [*a, *b],
        [a, _] if *a < 0.0 => [0.0, alone(yy, ye)],
        _ => [alone(xx, xe), 0.0],
    }
}

/// The upper one of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{Unit, UnitKind};

    fn row(index: u32, control: f64, tried: Option<(f64, f64)>) -> Row {
        let unit = Unit { kind: UnitKind::Expert, layer: 0, index };
        let tried = tried.map(|(effect, effective)| Tried { effect, effective, variance: 9.0 });
        let (predictors, spread) = ([control, 0.0], control * control);
        Row { unit, predictors, spread, tried, beside: None }
    }

    /// Effects twice their controls, every other one a tenth above or below.
    fn rows(effective: f64) -> Vec<Row> {
        let effect = |at: u32| {
            let control = f64::from(at + 1);
            let off = if at.is_multiple_of(2) { 1.1 } else { 0.9 };
            row(at, control, Some((2.0 * control * off, effective)))
        };
        (0..16).map(effect).collect()
    }

    fn fit(rows: &[Row], noise: f64) -> Fit {
        let tried: Vec<(&Row, &Tried)> =
            rows.iter().filter_map(|row| Some((row, row.tried.as_ref()?))).collect();
        let size = median(rows.iter().map(|row| row.predictors[0]).collect());
        Fit::of(rows, &tried, (noise, size))
    }

    #[test]
    fn without_noise_effects_stand_as_they_are() {
        let rows = rows(8.0);
        let fit = fit(&rows, 0.0);
        assert!((fit.weights[0] - 2.0).abs() < 0.05 && fit.weights[1] == 0.0);
        for row in &rows {
            let score = fit.posterior(row, 0.0);
            assert_eq!((score.mean, score.error), (row.tried.as_ref().unwrap().effect, 0.0));
        }
    }

    #[test]
    fn the_noisier_the_nearer_to_the_prediction_and_the_less_sure() {
        let rows = rows(8.0);
        let one = |noise: f64| {
            let fit = fit(&rows, noise);
            let (score, guess) = (fit.posterior(&rows[4], noise), fit.predicted(&rows[4]));
            ((score.mean - guess).abs(), score.error)
        };
        let noises: Vec<(f64, f64)> = [0.1, 1.0, 10.0].map(one).into();
        assert!(noises.windows(2).all(|pair| pair[1].0 < pair[0].0 && pair[1].1 > pair[0].1));
        let fit = fit(&rows, 1.0);
        let untried = fit.posterior(&row(99, 5.0, None), 1.0);
        assert_eq!((untried.mean, untried.effective), (fit.weights[0] * 5.0, 0.0));
        assert!(untried.error > fit.posterior(&rows[4], 1.0).error);
    }

    /// The posterior of two normals, by summing over a fine grid.
    #[test]
    fn the_posterior_is_that_of_two_normals() {
        let rows = rows(4.0);
        let (fit, noise) = (fit(&rows, 0.5), 0.5);
        let one = &rows[7];
        let (guess, effect) = (fit.predicted(one), one.tried.as_ref().unwrap().effect);
        let doubt = fit.doubt * (guess * guess + fit.middle * fit.middle);
        let variance = noise * one.spread / 4.0;
        let (mut mass, mut mean, mut square) = (0.0, 0.0, 0.0);
        for i in -40_000..40_000 {
            let x = guess + f64::from(i) * 2e-3;
            let log = (x - guess).powi(2) / doubt + (x - effect).powi(2) / variance;
            let weight = (-log / 2.0).exp();
            mass += weight;
            mean += weight * x;
            square += weight * x * x;
        }
        let (mean, square) = (mean / mass, square / mass);
        let score = fit.posterior(one, noise);
        assert!((score.mean - mean).abs() < 1e-6, "{} {mean}", score.mean);
        assert!((score.error - (square - mean * mean).sqrt()).abs() < 1e-4);
    }

    #[test]
    fn a_unit_that_its_control_says_nothing_of_is_as_noisy_as_its_prompts() {
        let rows = rows(8.0);
        let fit = fit(&rows, 1.0);
        let score = fit.posterior(&row(99, 0.0, Some((5.0, 8.0))), 1.0);
        assert!(score.error > 0.0 && score.mean < 5.0, "{score:?}");
    }

    #[test]
    fn a_predictor_that_speaks_against_effects_is_left_out() {
        let mut rows = rows(8.0);
        for row in &mut rows {
            row.predictors[1] = 20.0 - row.predictors[0];
        }
        let [own, other] = fit(&rows, 0.1).weights;
        assert!(own > 1.5 && other >= 0.0, "{own} {other}");
    }
}

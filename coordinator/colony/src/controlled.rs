//! Scores from few exact effects and cheap scores of all prompts.
//!
//! *Control variates*: the effect on the prompts that were tried, corrected by how far the cheap score of these prompts
//! is from that of all (one slope for all units; Cochran 1977, *Sampling Techniques*, §7.5: the difference
//! estimator). *Shrinkage*: what comes of it is drawn towards what cheap scores predict, by as much as its noise exceeds
//! the prediction's doubt (Fay & Herriot 1979). Effects are as noisy as they are large, and predictions as far off, so
//! both variances go by size: a unit's noise by how far its *cheap* score goes up and down over all prompts, which a few
//! prompts cannot say of an effect that a few prompts make. On recorded effects of the shipped teacher this costs half of
//! what variances of the tried prompts do.

use crate::State;
use crate::combine::{Basis, Score, Scored, estimates, solve};
use crate::state::{Both, CONTROL};
use crate::trail::UnitEstimate;
use uspx_domain::{Statistic, Unit};

/// The second predictor.
const SECOND: Statistic = Statistic::EASY_EP;
/// The doubt of a prediction beforehand, as a share of its square: about what recorded effects of the shipped teachers
/// have. It counts as much as so many units whose own effects are beyond doubt.
const USUAL_DOUBT: f64 = 1.0 / 3.0;
const USUAL_UNITS: f64 = 8.0;
/// The least.
const LEAST_DOUBT: f64 = 0.05;
/// Units of known effect without which nothing is fitted.
const LEAST_UNITS: usize = 8;

/// What is known of a unit.
struct Row {
    unit: Unit,
    /// Predictors: the control and the second score, per token over all prompts, on one scale.
    predictors: [f64; 2],
    /// Variance of the control from prompt to prompt, per token.
    spread: f64,
    /// The effect, where it was tried.
    tried: Option<Tried>,
    /// It beside the control, where both are known.
    beside: Option<Beside>,
}

/// An exact effect.
struct Tried {
    /// Per token, corrected.
    effect: f64,
    /// Prompts' worth of evidence.
    effective: f64,
    /// Its variance, as the tried prompts alone tell it.
    variance: f64,
}

impl Row {
    /// Variance of an effect: by the control, where that says anything of the unit.
    fn variance(&self, tried: &Tried, noise: f64) -> f64 {
        if self.spread > 0.0 { noise * self.spread / tried.effective } else { tried.variance }
    }
}

/// Scores every unit of the campaign's kind; none where too little is known for it.
pub fn score(state: &State) -> Option<Scored> {
    let campaign = state.campaign.as_ref()?;
    let units: Vec<Unit> = campaign.shape.units(campaign.mask.kind).collect();
    let beside: Vec<Option<Beside>> =
        units.iter().map(|unit| Beside::of(state.covariates.get(*unit)?)).collect();
    let slope = slope(&beside);
    let rows = rows(state, &units, (beside, slope))?;
    let size = median(rows.iter().map(|row| row.predictors[0]).collect());
    let noise = noise(&rows, (slope, size));
    let tried = rows.iter().filter_map(|row| Some((row, row.tried.as_ref()?)));
    let tried: Vec<(&Row, &Tried)> = tried.collect();
    if tried.len() < LEAST_UNITS {
        return None;
    }
    let fit = Fit::of(&rows, &tried, (noise, size));
    let scores = rows.iter().map(|row| (row.unit, fit.posterior(row, noise))).collect();
    Some(Scored { basis: Basis::Exact, scores })
}

/// None where a predictor is known of no unit.
fn rows(
    state: &State,
    units: &[Unit],
    (beside, slope): (Vec<Option<Beside>>, f64),
) -> Option<Vec<Row>> {
    let of = |statistic| estimates(&state.trails, statistic, units);
    let (control, second, exact) = (of(CONTROL), of(SECOND), of(Statistic::EXACT));
    let mean =
        |column: &[Option<UnitEstimate>]| column.iter().flatten().map(|e| e.mean).sum::<f64>();
    let (own, other) = (mean(&control), mean(&second));
    if own <= 0.0 {
        return None;
    }
    let scale = if other > 0.0 { own / other } else { 0.0 };
    let at = |e: Option<UnitEstimate>| e.map_or(0.0, |e| e.mean);
    let cheap = control.into_iter().zip(second);
    let rows = units.iter().zip(cheap).zip(exact.into_iter().zip(beside));
    let rows = rows.map(|((unit, (control, second)), (exact, beside))| {
        let prompts = state.trails.get(Statistic::EXACT, *unit).map_or(0.0, |s| s.n.to_f64());
        let correct = |exact| tried(exact, prompts, (slope, at(control), beside.as_ref()));
        Row {
            unit: *unit,
            predictors: [at(control), at(second) * scale],
            spread: control.map_or(0.0, |e| e.spread),
            tried: exact.map(correct),
            beside,
        }
    });
    Some(rows.collect())
}

/// The effect on so many prompts, by the slope of effects on the control, whose mean over all prompts is `all`.
fn tried(
    exact: UnitEstimate,
    prompts: f64,
    (slope, all, beside): (f64, f64, Option<&Beside>),
) -> Tried {
    // A prompt whose control is not known is taken to have that of all.
    let correction = beside.map_or(0.0, |b| slope * (all - b.control) * b.prompts / prompts);
    let (effect, effective) = (exact.mean + correction, exact.effective);
    Tried { effect, effective, variance: exact.variance() }
}

/// Sums about the ratios of both, in nats².
struct Beside {
    /// The control per token, on the prompts that were tried.
    control: f64,
    /// Σ(c − ĉt)(x − x̂t).
    both: f64,
    /// Σ(c − ĉt)².
    own: f64,
    /// Σ(x − x̂t)².
    effect: f64,
    /// Prompts.
    prompts: f64,
    /// Tokens of a prompt.
    tokens: f64,
}

impl Beside {
    fn of(sums: &Both) -> Option<Self> {
        let exact = &sums.exact;
        let [n, x, xx, t, tt, xt] =
            [exact.n, exact.x, exact.xx, exact.t, exact.tt, exact.xt].map(|s| s.to_f64());
        let [c, cc, ct, cx] = [sums.c, sums.cc, sums.ct, sums.cx].map(|s| s.to_f64());
        if n <= 0.0 || t <= 0.0 {
            return None;
        }
        let (control, effect) = (c / t, x / t);
        Some(Self {
            control,
            both: cx - control * xt - effect * ct + control * effect * tt,
            own: cc - 2.0 * control * ct + control * control * tt,
            effect: xx - 2.0 * effect * xt + effect * effect * tt,
            prompts: n,
            tokens: t / n,
        })
    }
}

/// One slope for all units: what a unit's few prompts say of its own is mostly noise.
fn slope(beside: &[Option<Beside>]) -> f64 {
    let sums = beside.iter().flatten();
    let (both, own) = sums.fold((0.0, 0.0), |(b, o), s| (b + s.both, o + s.own));
    if own > 0.0 { both / own } else { 0.0 }
}

/// How much larger the variance of an effect is than that of the unit's control, once the control's part is taken
/// out: one number for all units, whatever their size.
fn noise(rows: &[Row], (slope, size): (f64, f64)) -> f64 {
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
struct Fit {
    weights: [f64; 2],
    /// Doubt as a share of the prediction's square.
    doubt: f64,
    /// The median prediction: what is smaller is doubted as if it were that large.
    middle: f64,
}

impl Fit {
    /// By least squares, each unit weighted by the square of its size.
    fn of(rows: &[Row], tried: &[(&Row, &Tried)], (noise, size): (f64, f64)) -> Self {
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
    fn posterior(&self, row: &Row, noise: f64) -> Score {
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
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::UnitKind;

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

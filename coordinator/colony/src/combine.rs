//! One score per unit from everything measured on it: exact effects, shrunk towards what cheap
//! scores predict.
//!
//! The prediction is a linear regression of exact effects on cheap scores; the shrinkage is
//! empirical Bayes (Efron & Morris 1975; the regression form is Fay & Herriot 1979). Where too
//! little exact evidence exists, the first cheap score stands alone (EASY-EP for experts).

use crate::controlled::told;
use crate::state::Trails;
use crate::trail::UnitEstimate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uspx_domain::{ModelShape, Statistic, Unit, UnitKind};

/// How many cheap scores the regression uses.
const PREDICTORS: usize = 2;

/// Prompts' worth of pooled spread mixed into a unit's own, so that a unit seen a few times is not
/// trusted too much.
const POOLED_PROMPTS: f64 = 4.0;

/// A unit's score, per response token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The score.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
    /// How many prompts' worth of evidence it rests on.
    pub effective: f64,
}

/// What scores are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// One cheap score, in its own unit.
    Cheap(Statistic),
    /// Exact effects in nats per token, where there are any.
    Exact,
    /// Exact effects in (nats per token)^¾, averaged over tokens ([`Say::Typical`](crate::controlled::Say)).
    Typical,
}

impl Basis {
    /// Whether scores rest on exact effects.
    pub fn is_exact(self) -> bool {
        !matches!(self, Self::Cheap(_))
    }

    /// A value of these scores as people read it: of exact effects in nats per token.
    pub fn told(self, value: f64) -> f64 {
        match self {
            Self::Typical => told(value),
            Self::Exact | Self::Cheap(_) => value,
        }
    }

    /// A score likewise, its error to first order.
    pub fn told_score(self, score: &Score) -> Score {
        let mean = self.told(score.mean);
        let error = match self {
            Self::Typical if score.mean > 0.0 => 4.0 / 3.0 * mean / score.mean * score.error,
            Self::Typical => 0.0,
            Self::Exact | Self::Cheap(_) => score.error,
        };
        Score { mean, error, ..*score }
    }

    /// What people read, in words.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Typical | Self::Exact => "nats a token",
            Self::Cheap(statistic) => statistic.name(),
        }
    }
}

/// Scores of every unit of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// What they are made of.
    pub basis: Basis,
    /// By unit.
    pub scores: BTreeMap<Unit, Score>,
}

/// Scores every unit of `kind`; none where no statistic is known at all.
pub fn score(trails: &Trails, shape: &ModelShape, kind: UnitKind) -> Option<Scored> {
    let units: Vec<Unit> = shape.units(kind).collect();
    let exact = estimates(trails, Statistic::EXACT, &units);
    let features = features(trails, &units);
    let known = exact.iter().flatten().count();
    if known == units.len() || known > 2 * (features.width + 1) {
        return Some(Scored { basis: Basis::Exact, scores: shrink(&units, &exact, &features) });
    }
    let (statistic, column) = cheap(trails, &units).next()?;
    let scores = units.iter().zip(column).map(|(unit, e)| (*unit, plain(e.as_ref())));
    Some(Scored { basis: Basis::Cheap(statistic), scores: scores.collect() })
}

fn estimates(trails: &Trails, statistic: Statistic, units: &[Unit]) -> Vec<Option<UnitEstimate>> {
    units.iter().map(|u| trails.get(statistic, *u).as_ref().and_then(UnitEstimate::of)).collect()
}

/// The cheap scores that are known of any unit, best first. A unit that is missing was never
/// reached: nothing is known for it.
fn cheap<'a>(
    trails: &'a Trails,
    units: &'a [Unit],
) -> impl Iterator<Item = (Statistic, Vec<Option<UnitEstimate>>)> + 'a {
    let columns = Statistic::cheap().into_iter().map(|s| (s, estimates(trails, s, units)));
    columns.filter(|(_, column)| column.iter().any(Option::is_some))
}

fn plain(estimate: Option<&UnitEstimate>) -> Score {
    match estimate {
        Some(e) => Score { mean: e.mean, error: e.standard_error(), effective: e.effective },
        None => Score { mean: 0.0, error: 0.0, effective: 0.0 },
    }
}

/// Predictors of each unit: an intercept, then standardised cheap scores.
struct Features {
    width: usize,
    rows: Vec<Vec<f64>>,
}

fn features(trails: &Trails, units: &[Unit]) -> Features {
    let columns: Vec<Vec<f64>> =
        cheap(trails, units).take(PREDICTORS).map(|(_, column)| standardised(&column)).collect();
    let row = |at: usize| {
        std::iter::once(1.0).chain(columns.iter().filter_map(|c| c.get(at).copied())).collect()
    };
    Features { width: columns.len() + 1, rows: (0..units.len()).map(row).collect() }
}

/// Mean 0 and variance 1.
fn standardised(column: &[Option<UnitEstimate>]) -> Vec<f64> {
    let values: Vec<f64> = column.iter().map(|e| e.map_or(0.0, |e| e.mean)).collect();
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
    let scale = if deviation > 0.0 { 1.0 / deviation } else { 0.0 };
    values.iter().map(|v| (v - mean) * scale).collect()
}

/// Exact effects drawn towards the prediction, each by as much as its error exceeds the
/// prediction's.
fn shrink(
    units: &[Unit],
    exact: &[Option<UnitEstimate>],
    features: &Features,
) -> BTreeMap<Unit, Score> {
    let measured = steadied(exact);
    let seen: Vec<(&[f64], f64)> = features
        .rows
        .iter()
        .zip(&measured)
        .filter_map(|(row, s)| s.map(|s| (row.as_slice(), s.mean)))
        .collect();
    let weights = least_squares(&seen, features.width);
    let predict = |row: &[f64]| row.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>();
    let predicted: Vec<f64> = features.rows.iter().map(|row| predict(row)).collect();
    let doubt = prediction_variance(&measured, &predicted, features.width);
    let posterior = |(score, guess): (&Option<Score>, &f64)| match score {
        Some(score) => blend(*score, *guess, doubt),
        None => Score { mean: *guess, error: doubt.sqrt(), effective: 0.0 },
    };
    units.iter().copied().zip(measured.iter().zip(&predicted).map(posterior)).collect()
}

/// Exact scores whose spread is mixed with the pooled one.
fn steadied(exact: &[Option<UnitEstimate>]) -> Vec<Option<Score>> {
    let known = || exact.iter().flatten();
    let pooled = known().map(|e| e.spread).sum::<f64>() / (known().count().max(1) as f64);
    let steady = |e: &UnitEstimate| {
        let spread =
            (e.spread * e.effective + pooled * POOLED_PROMPTS) / (e.effective + POOLED_PROMPTS);
        Score { mean: e.mean, error: (spread / e.effective).sqrt(), effective: e.effective }
    };
    exact.iter().map(|e| e.as_ref().map(steady)).collect()
}

/// Variance of true effects about the prediction, by moments; never less than a twentieth of what
/// is seen.
fn prediction_variance(measured: &[Option<Score>], predicted: &[f64], width: usize) -> f64 {
    let misses: Vec<(f64, f64)> = measured
        .iter()
        .zip(predicted)
        .filter_map(|(s, p)| s.map(|s| ((s.mean - p) * (s.mean - p), s.error * s.error)))
        .collect();
    let free = misses.len().saturating_sub(width).max(1) as f64;
    let seen = misses.iter().map(|(miss, _)| miss).sum::<f64>();
    let noise = misses.iter().map(|(_, noise)| noise).sum::<f64>();
    let (moment, least) = ((seen - noise) / free, seen / free / 20.0);
    if moment > least { moment } else { least }
}

fn blend(score: Score, guess: f64, doubt: f64) -> Score {
    let noise = score.error * score.error;
    if noise + doubt <= 0.0 {
        return score;
    }
    let own = doubt / (noise + doubt);
    Score {
        mean: own * score.mean + (1.0 - own) * guess,
        error: (own * noise).sqrt(),
        effective: score.effective,
    }
}

/// Weights of the least-squares fit, by the normal equations with a whisper of ridge.
fn least_squares(rows: &[(&[f64], f64)], width: usize) -> Vec<f64> {
    let mut system = vec![vec![0.0; width + 1]; width];
    for (at, equation) in system.iter_mut().enumerate() {
        for (to, cell) in equation.iter_mut().enumerate() {
            let term = |(row, y): &(&[f64], f64)| {
                feature(row, at) * if to == width { *y } else { feature(row, to) }
            };
            *cell = rows.iter().map(term).sum::<f64>()
                + if at == to { 1e-9 * rows.len() as f64 } else { 0.0 };
        }
    }
    solve(system)
}

fn feature(row: &[f64], at: usize) -> f64 {
    row.get(at).copied().unwrap_or(0.0)
}

/// Gauss–Jordan elimination of a positive definite system, each row ending in its right-hand side.
pub(crate) fn solve(mut system: Vec<Vec<f64>>) -> Vec<f64> {
    for at in 0..system.len() {
        let Some(pivot) = system.get(at).cloned() else { break };
        let head = feature(&pivot, at);
        let pivot: Vec<f64> =
            pivot.iter().map(|x| if head > 0.0 { x / head } else { 0.0 }).collect();
        for (row, equation) in system.iter_mut().enumerate() {
            let factor = feature(equation, at);
            for (cell, p) in equation.iter_mut().zip(&pivot) {
                *cell = if row == at { *p } else { *cell - factor * p };
            }
        }
    }
    system.iter().map(|row| row.last().copied().unwrap_or(0.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_finds_the_plane() {
        let rows: Vec<([f64; 3], f64)> = (0..20)
            .map(|i| {
                let (a, b) = (f64::from(i % 5), f64::from(i % 3));
                ([1.0, a, b], 2.0 + 3.0 * a - b)
            })
            .collect();
        let rows: Vec<(&[f64], f64)> = rows.iter().map(|(r, y)| (r.as_slice(), *y)).collect();
        let weights = least_squares(&rows, 3);
        for (got, want) in weights.iter().zip([2.0, 3.0, -1.0]) {
            assert!((got - want).abs() < 1e-6, "{weights:?}");
        }
    }

    #[test]
    fn a_noisy_effect_leans_on_its_prediction() {
        let sharp = blend(Score { mean: 1.0, error: 0.01, effective: 9.0 }, 0.0, 1.0);
        let vague = blend(Score { mean: 1.0, error: 3.0, effective: 1.0 }, 0.0, 1.0);
        assert!(sharp.mean > 0.99 && (vague.mean - 0.1).abs() < 1e-9);
        assert!(vague.error < 1.0 && vague.error > sharp.error);
    }

    /// True effects, a cheap score that knows something of them, and a few noisy exact
    /// measurements.
    #[test]
    fn shrinking_halves_the_error_of_scarce_measurements() {
        let mut dice = crate::Dice::new(4, "shrink", 0);
        let units: Vec<Unit> =
            (0..64).map(|index| Unit { kind: UnitKind::Expert, layer: 0, index }).collect();
        let truth: Vec<f64> = units.iter().map(|_| dice.normal().abs()).collect();
        let rows = truth.iter().map(|t| vec![1.0, t + 0.4 * dice.normal()]).collect();
        let features = Features { width: 2, rows };
        let mut measure =
            |t: &f64| Some(UnitEstimate { mean: t + dice.normal(), spread: 5.0, effective: 5.0 });
        let exact: Vec<Option<UnitEstimate>> = truth.iter().map(&mut measure).collect();
        let scores = shrink(&units, &exact, &features);
        let error = |got: &dyn Fn(usize) -> f64| {
            truth.iter().enumerate().map(|(i, t)| (got(i) - t) * (got(i) - t)).sum::<f64>()
        };
        let (raw, shrunk) =
            (error(&|i| exact[i].unwrap().mean), error(&|i| scores[&units[i]].mean));
        assert!(shrunk < raw / 2.0, "{shrunk} {raw}");
        assert!(scores.values().all(|s| s.error > 0.0 && s.error < 1.0));
    }

    #[test]
    fn a_cheap_score_stands_in_until_exact_effects_exist() {
        let shape = crate::test_shape(2, 8);
        assert_eq!(score(&Trails::default(), &shape, UnitKind::Expert), None);
        let column = |unit: Unit, statistic| uspx_domain::Column {
            unit,
            statistic,
            values: vec![unit.index as f32, 1.0],
        };
        let outcome = |statistic| {
            let prompts = ["a", "b"]
                .map(|id| uspx_domain::PromptTokens { id: id.into(), tokens: 2 })
                .to_vec();
            let columns = shape.units(UnitKind::Expert).map(|u| column(u, statistic)).collect();
            uspx_domain::Outcome::Scores(uspx_domain::Deposit { prompts, columns, moments: vec![] })
        };
        let work = uspx_domain::Work::Estimate(uspx_domain::Estimate {
            prompts: vec![0, 1],
            estimator: uspx_domain::Estimator::TRACE,
            kinds: vec![UnitKind::Expert],
            baseline: uspx_domain::Baseline::Zero,
        });
        let purpose = crate::Purpose::Evidence;
        let model = uspx_domain::Fingerprint(uspx_domain::Digest::of(b"m"));
        let task = crate::PlannedTask {
            id: uspx_domain::TaskId::derived(b"t"),
            epoch: 1,
            index: 0,
            model,
            purpose,
            work,
        };
        let mut trails = Trails::default();
        trails.gather(&task, &outcome(Statistic::EASY_EP));
        let cheap = score(&trails, &shape, UnitKind::Expert).unwrap();
        assert_eq!(cheap.basis, Basis::Cheap(Statistic::EASY_EP));
        let best = cheap.scores.iter().max_by(|a, b| a.1.mean.total_cmp(&b.1.mean)).unwrap();
        assert_eq!((best.0.index, best.1.mean), (7, 2.0));
        trails.gather(&task, &outcome(Statistic::EXACT));
        assert_eq!(score(&trails, &shape, UnitKind::Expert).unwrap().basis, Basis::Exact);
    }
}

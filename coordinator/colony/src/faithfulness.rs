//! How faithful what a mask keeps is to the whole model, fraction by fraction (MIB: Mueller et al.
//! 2025, arXiv 2504.13151): f(k) = (m(C_k) − m(∅)) ÷ (m(N) − m(∅)), m the pooled loss on held-out
//! prompts, N the whole model, ∅ the one without any of the units; CPR = ∫ f and CMD = ∫ |1 − f| over
//! the fraction kept, by the trapezoid rule.

use crate::bootstrap::{Draws, Estimate, pooled};
use serde::Serialize;

/// The losses that curves are held against, in nats summed over a prompt's response, one value a
/// prompt.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// N: the whole model.
    pub whole: &'a [f32],
    /// ∅: the model without any of the units.
    pub empty: &'a [f32],
    /// Response tokens of each prompt.
    pub tokens: &'a [u32],
}

/// One place on a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Place {
    /// The fraction kept.
    pub kept: f64,
    /// The loss, nats per response token.
    pub loss: f64,
    /// How much it lies above the whole model's.
    pub rise: Estimate,
    /// f.
    pub faithfulness: Estimate,
}

/// A way to choose what is kept, over all fractions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// CMD: 0 is perfect.
    pub cmd: Estimate,
    /// CPR: larger is better.
    pub cpr: Estimate,
    /// Ascending.
    pub places: Vec<Place>,
}

/// What is shown of a curve, on one draw of the prompts.
struct Drawn {
    losses: Vec<f64>,
    rises: Vec<f64>,
    faithfulness: Vec<f64>,
    cmd: f64,
    cpr: f64,
}

/// The curve of one or more `runs`, the mean of which it is; a run is a row of losses for every
/// fraction of `kept`, which ascends.
pub fn curve(kept: &[f64], runs: &[Vec<&[f32]>], ends: Ends<'_>, draws: &Draws) -> Curve {
    let found = drawn(kept, runs, ends, None);
    let each: Vec<Drawn> =
        draws.iter().map(|counts| drawn(kept, runs, ends, Some(counts))).collect();
    let of = |value: f64, figure: &dyn Fn(&Drawn) -> Option<f64>| {
        Estimate::of(value, each.iter().filter_map(figure).collect())
    };
    let value = |of: &[f64], at: usize| of.get(at).copied().unwrap_or(f64::NAN);
    let place = |(at, kept): (usize, &f64)| Place {
        kept: *kept,
        loss: value(&found.losses, at),
        rise: of(value(&found.rises, at), &|drawn| drawn.rises.get(at).copied()),
        faithfulness: of(value(&found.faithfulness, at), &|drawn| {
            drawn.faithfulness.get(at).copied()
        }),
    };
    Curve {
        cmd: of(found.cmd, &|drawn| Some(drawn.cmd)),
        cpr: of(found.cpr, &|drawn| Some(drawn.cpr)),
        places: kept.iter().enumerate().map(place).collect(),
    }
}

/// How much the loss of each row lies above the whole model's, nats per response token; on a draw of
/// the prompts where `counts` says how often each comes.
pub fn rises(rows: &[&[f32]], ends: Ends<'_>, counts: Option<&[u32]>) -> Vec<f64> {
    let (whole, tokens) = (pooled(ends.whole, counts), ends.tokens(counts));
    rows.iter().map(|row| (pooled(row, counts) - whole) / tokens).collect()
}

impl Ends<'_> {
    /// The pooled loss of a row, nats per response token.
    pub fn loss(&self, row: &[f32]) -> f64 {
        pooled(row, None) / self.tokens(None)
    }

    fn tokens(&self, counts: Option<&[u32]>) -> f64 {
        let tokens = self.tokens.iter().copied().map(f64::from);
        match counts {
            None => tokens.sum(),
            Some(counts) => tokens.zip(counts).map(|(t, count)| t * f64::from(*count)).sum(),
        }
    }
}

fn drawn(kept: &[f64], runs: &[Vec<&[f32]>], ends: Ends<'_>, counts: Option<&[u32]>) -> Drawn {
    let [whole, empty] = [ends.whole, ends.empty].map(|nats| pooled(nats, counts));
    let tokens = ends.tokens(counts);
    let mut mean = Drawn {
        losses: vec![0.0; kept.len()],
        rises: vec![0.0; kept.len()],
        faithfulness: vec![0.0; kept.len()],
        cmd: 0.0,
        cpr: 0.0,
    };
    let share = 1.0 / runs.len() as f64;
    let add = |into: &mut [f64], at: usize, value: f64| {
        into.get_mut(at).into_iter().for_each(|into| *into += share * value);
    };
    for run in runs {
        let mut points = Vec::with_capacity(kept.len());
        for (at, (kept, row)) in kept.iter().zip(run).enumerate() {
            let nats = pooled(row, counts);
            let f = faithfulness(nats, empty, whole);
            add(&mut mean.losses, at, nats / tokens);
            add(&mut mean.rises, at, (nats - whole) / tokens);
            add(&mut mean.faithfulness, at, f);
            points.push((*kept, f));
        }
        mean.cmd += share * cmd(&points);
        mean.cpr += share * integral(points.iter().copied());
    }
    mean
}

/// f of a circuit's loss.
fn faithfulness(circuit: f64, empty: f64, whole: f64) -> f64 {
    (circuit - empty) / (whole - empty)
}

fn cmd(points: &[(f64, f64)]) -> f64 {
    integral(points.iter().map(|(kept, f)| (*kept, (1.0 - f).abs())))
}

/// The trapezoid rule on points (x, y), ascending by x.
fn integral(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let pairs = points.clone().zip(points.skip(1));
    pairs.map(|((a, f), (b, g))| (b - a) * (f + g) / 2.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dice;

    fn draws(prompts: usize) -> Draws {
        Draws::new(prompts, 200, &mut Dice::new(1, "draws", 0))
    }

    /// By hand: whole 1 and empty 3 nats per token; circuits of 3, 2 and .5 have f 0, .5 and 1.25.
    #[test]
    fn curves_are_those_of_the_formula() {
        let (whole, empty, tokens) = ([1.0, 3.0], [3.0, 9.0], [1, 3]);
        let ends = Ends { whole: &whole, empty: &empty, tokens: &tokens };
        let rows: [&[f32]; 3] = [&[3.0, 9.0], &[2.0, 6.0], &[0.5, 1.5]];
        let found = curve(&[0.0, 0.5, 1.0], &[rows.to_vec()], ends, &draws(2));
        let f: Vec<f64> = found.places.iter().map(|p| p.faithfulness.value).collect();
        assert_eq!(f, [0.0, 0.5, 1.25]);
        let losses: Vec<f64> = found.places.iter().map(|p| p.loss).collect();
        assert_eq!(losses, [3.0, 2.0, 0.5]);
        assert_eq!(found.places[2].rise.value, -0.5);
        // .5 · (0 + .5) / 2 + .5 · (.5 + 1.25) / 2, and with 1, .5 and .25 from 1.
        assert!((found.cpr.value - 0.5625).abs() < 1e-12);
        assert!((found.cmd.value - 0.5625).abs() < 1e-12);
        // Both prompts say the same of every token: no draw says otherwise.
        assert!((found.cmd.high - found.cmd.low).abs() < 1e-12);
    }

    /// Against `numpy.trapezoid(f, kept)` of NumPy 2.4, on an uneven grid.
    #[test]
    fn the_integral_is_numpys() {
        let points = [(0.125, 0.3), (0.2, 0.55), (0.5, 0.81), (0.9, 1.02), (1.0, 1.0)];
        assert!((integral(points.into_iter()) - 0.702_875).abs() < 1e-12);
    }

    /// Several runs: means of their curves and of their areas, which is not the area of the mean.
    #[test]
    fn runs_are_averaged_after_they_are_measured() {
        let (whole, empty) = ([0.0; 1], [1.0; 1]);
        let ends = Ends { whole: &whole, empty: &empty, tokens: &[1] };
        let runs: [Vec<&[f32]>; 2] = [vec![&[0.5], &[0.0]], vec![&[-0.5], &[0.0]]];
        let found = curve(&[0.0, 1.0], &runs, ends, &draws(1));
        assert_eq!(found.places[0].faithfulness.value, 1.0, "of .5 and 1.5");
        assert_eq!((found.cmd.value, found.cpr.value), (0.25, 1.0));
    }

    /// The interval of one place against the delta method for a ratio.
    #[test]
    fn intervals_are_those_of_the_ratio() {
        let mut dice = Dice::new(5, "losses", 0);
        let mut row = |mean: f64| -> Vec<f32> {
            (0..300).map(|_| (mean + 0.3 * dice.normal()) as f32).collect()
        };
        let (whole, circuit, empty) = (row(1.0), row(2.0), row(4.0));
        let ends = Ends { whole: &whole, empty: &empty, tokens: &[1; 300] };
        let many = Draws::new(300, 4000, &mut Dice::new(2, "draws", 0));
        let found = curve(&[0.5], &[vec![&circuit]], ends, &many).places[0].faithfulness;
        let mean = |row: &[f32]| pooled(row, None) / 300.0;
        let (top, bottom) = (mean(&circuit) - mean(&empty), mean(&whole) - mean(&empty));
        let residual = |at: usize| {
            let [c, e, w] = [&circuit, &empty, &whole].map(|row| f64::from(row[at]));
            (c - e - top / bottom * (w - e)).powi(2)
        };
        let error = ((0..300).map(residual).sum::<f64>() / 300.0).sqrt() / bottom.abs();
        let half = 1.96 * error / 300f64.sqrt();
        assert!((found.value - top / bottom).abs() < 1e-9);
        let (low, high) = (found.value - half, found.value + half);
        assert!((found.low - low).abs() < 0.15 * half && (found.high - high).abs() < 0.15 * half);
    }
}

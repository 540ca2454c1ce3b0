//! Other ways to spend a budget of single bans: what the colony is held against. Each is a plain function of the
//! recorded matrix.

use crate::matrix::Matrix;
use std::collections::{BTreeMap, BTreeSet};
use uspx_colony::Dice;
use uspx_colony::combine::Score;
use uspx_colony::mask::{Budget, build};
use uspx_domain::{Statistic, Unit};

/// What there is to be found, and to be spent.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// What is recorded.
    pub matrix: &'a Matrix,
    /// How much is kept.
    pub budget: &'a Budget<'a>,
    /// The recorded prompts that there are, in order.
    pub prompts: &'a [usize],
    /// Pairs of prompt and unit that may be tried.
    pub pairs: usize,
}

/// A way to spend a budget.
pub struct Way {
    /// Its name.
    pub name: &'static str,
    /// The units that it keeps.
    pub keep: fn(Job<'_>, &mut Dice) -> BTreeSet<Unit>,
}

/// All of them. The first is the strong one.
pub const WAYS: [Way; 5] = [
    Way { name: "uniform with control variates", keep: uniform },
    Way { name: "magnitude ants", keep: ants },
    Way { name: "successive halving", keep: halving },
    Way { name: "easy-ep alone", keep: |job, _| cheap(job, Statistic::EASY_EP) },
    Way { name: "atp alone", keep: |job, _| cheap(job, Statistic::ATP_ABS) },
];

/// Every unit on every prompt.
pub fn exhaustive(job: Job<'_>) -> BTreeSet<Unit> {
    let Job { matrix, budget, prompts, .. } = job;
    let units = || budget.shape.units(budget.kind);
    best(budget, &units().map(|unit| (unit, mean(matrix, unit, prompts))).collect())
}

/// By a cheap score of all prompts.
fn cheap(job: Job<'_>, statistic: Statistic) -> BTreeSet<Unit> {
    best(job.budget, &job.matrix.cheap(statistic, job.prompts))
}

/// The units that these scores keep.
fn best(budget: &Budget<'_>, scores: &BTreeMap<Unit, f64>) -> BTreeSet<Unit> {
    let score = |mean: f64| Score { mean, error: 0.0, effective: 1.0 };
    build(budget, &scores.iter().map(|(unit, mean)| (*unit, score(*mean))).collect())
}

/// Rise per token.
fn mean(matrix: &Matrix, unit: Unit, prompts: &[usize]) -> f64 {
    let rise: f64 = prompts.iter().map(|p| matrix.rise(&unit, *p)).sum();
    rise / prompts.iter().map(|p| matrix.tokens_of(*p)).sum::<f64>().max(1.0)
}

/// All units on the first prompts that the budget pays for; the cheap score of the others, known on all prompts,
/// says how these prompts differ from the rest. One slope for all units, by least squares of residuals.
fn uniform(job: Job<'_>, _: &mut Dice) -> BTreeSet<Unit> {
    let Job { matrix, budget, prompts, pairs } = job;
    let units: Vec<Unit> = budget.shape.units(budget.kind).collect();
    let some = prompts.get(..(pairs / units.len()).clamp(1, prompts.len())).unwrap_or(prompts);
    let all = matrix.cheap(Statistic::ATP_ABS, prompts);
    let here = matrix.cheap(Statistic::ATP_ABS, some);
    let columns: BTreeMap<Unit, &Vec<f32>> = matrix
        .cheap
        .iter()
        .flatten()
        .filter(|(s, ..)| *s == Statistic::ATP_ABS)
        .map(|(_, unit, values)| (*unit, values))
        .collect();
    let (mut both, mut own) = (0.0, 0.0);
    for unit in &units {
        let (effect, cheap) = (mean(matrix, *unit, some), here.get(unit).copied().unwrap_or(0.0));
        for prompt in some {
            let tokens = matrix.tokens_of(*prompt);
            let value = columns.get(unit).and_then(|c| c.get(*prompt)).copied().unwrap_or(0.0);
            let c = f64::from(value) - cheap * tokens;
            both += c * (matrix.rise(unit, *prompt) - effect * tokens);
            own += c * c;
        }
    }
    let slope = if own > 0.0 { both / own } else { 0.0 };
    let of = |map: &BTreeMap<Unit, f64>, unit: &Unit| map.get(unit).copied().unwrap_or(0.0);
    let score =
        |unit: &Unit| mean(matrix, *unit, some) + slope * (of(&all, unit) - of(&here, unit));
    best(budget, &units.iter().map(|unit| (*unit, score(unit))).collect())
}

/// Rounds of ants.
const ROUNDS: usize = 16;
/// What a round leaves of the pheromone (MAX-MIN ant system, Stützle & Hoos 2000).
const LEFT: f64 = 0.9;

/// Ants that walk to units by pheromone, which the largest effects reinforce.
fn ants(job: Job<'_>, dice: &mut Dice) -> BTreeSet<Unit> {
    let Job { matrix, budget, prompts, pairs } = job;
    let units: Vec<Unit> = budget.shape.units(budget.kind).collect();
    let mut trail = vec![1.0; units.len()];
    let mut seen: Vec<(f64, f64, usize)> = vec![(0.0, 0.0, 0); units.len()];
    let effect =
        |(rise, tokens, _): &(f64, f64, usize)| if *tokens > 0.0 { rise / tokens } else { 0.0 };
    for _ in 0..ROUNDS {
        for _ in 0..pairs / ROUNDS {
            let Some(at) = dice.draw(&trail, 1).first().copied() else { continue };
            let (Some(seen), Some(unit)) = (seen.get_mut(at), units.get(at)) else { continue };
            let Some(prompt) = prompts.get(seen.2 % prompts.len().max(1)) else { continue };
            let (rise, tokens) = (matrix.rise(unit, *prompt), matrix.tokens_of(*prompt));
            *seen = (seen.0 + rise, seen.1 + tokens, seen.2 + 1);
        }
        let most = seen.iter().map(|s| effect(s).abs()).fold(1e-9, f64::max);
        for (trail, seen) in trail.iter_mut().zip(&seen) {
            *trail = (*trail * LEFT + effect(seen).abs() / most).clamp(0.05, 1.0 / (1.0 - LEFT));
        }
    }
    best(budget, &units.iter().copied().zip(seen.iter().map(effect)).collect())
}

/// All units on some prompts, then the half with the largest effects on as many more, and so on.
fn halving(job: Job<'_>, _: &mut Dice) -> BTreeSet<Unit> {
    let Job { matrix, budget, prompts, pairs } = job;
    let mut left: Vec<Unit> = budget.shape.units(budget.kind).collect();
    let rounds = left.len().max(2).ilog2() as usize;
    let mut scores: BTreeMap<Unit, f64> = BTreeMap::new();
    let mut spent = 0;
    for _ in 0..rounds {
        let more = (pairs / rounds / left.len()).max(1);
        spent = (spent + more).min(prompts.len());
        let some = prompts.get(..spent).unwrap_or(prompts);
        for unit in &left {
            scores.insert(*unit, mean(matrix, *unit, some));
        }
        let size = |unit: &Unit| scores.get(unit).copied().unwrap_or(0.0);
        left.sort_by(|a, b| size(b).abs().total_cmp(&size(a).abs()).then(a.cmp(b)));
        left.truncate(left.len().div_ceil(2));
    }
    best(budget, &scores)
}

//! How far each score agrees with exact effects, and with itself on other prompts.

use super::evidence::Evidence;
use super::{Bench, DRAWS};
use crate::error::Result;
use crate::rows::Ranking;
use serde::Serialize;
use uspx_colony::Dice;
use uspx_colony::agreement::{overlap, spearman};
use uspx_colony::bootstrap::{Draws, Estimate};
use uspx_domain::UnitKind;
use uspx_model::Progress;

/// The best quarter of the units is what overlaps are of.
const TOP: usize = 4;
/// How often the prompts are halved.
const HALVINGS: usize = 20;

/// All scores of one kind of unit.
#[derive(Debug, Serialize)]
pub(super) struct Agreement {
    pub kind: UnitKind,
    /// What is drawn: prompts, or groups of them where units are many.
    pub blocks: usize,
    pub of_groups: bool,
    /// K: how many of the best units overlaps are of.
    pub top: usize,
    pub halvings: usize,
    pub scores: Vec<Scored>,
}

/// One score.
#[derive(Debug, Serialize)]
pub(super) struct Scored {
    pub name: &'static str,
    pub is_default: bool,
    /// With exact effects; none where these were not measured.
    pub with_exact: Option<Alike>,
    /// Between two halves of the prompts: the mean over random halvings and 95 % of them. None where
    /// there is but one prompt.
    pub between_halves: Option<Alike>,
}

/// How alike two scores are.
#[derive(Debug, Serialize)]
pub(super) struct Alike {
    pub spearman: Estimate,
    /// The share of the K best units that are among the other's.
    pub overlap: Estimate,
}

/// Spearman's ρ and the overlap of two scores.
type Both = [f64; 2];

impl Agreement {
    pub(super) fn of(bench: &Bench<'_>, evidence: &Evidence) -> Result<Self> {
        let (kind, seed) = (evidence.kind, bench.args.seed);
        let rankings = bench.args.rankings(kind);
        let exact = rankings.iter().copied().find(|ranking| ranking.is_exact());
        let top = evidence.units().div_ceil(TOP);
        let draws = Draws::new(evidence.blocks, DRAWS, &mut Dice::new(seed, "fit draws", 0));
        let halves = halvings(evidence.blocks, &mut Dice::new(seed, "halves", 0));
        let exact = exact.map(|exact| Oracle::of(evidence, exact, &draws));
        let bar = bench.bar(&format!("comparing scores of {kind}s"));
        let mut scores = Vec::new();
        for (done, ranking) in rankings.iter().enumerate() {
            bar.report(done as u64, rankings.len() as u64)?;
            let alike = |exact: &Oracle| exact.beside(evidence, *ranking, &draws, top);
            scores.push(Scored {
                name: ranking.name(),
                is_default: ranking.is_default(),
                with_exact: exact.as_ref().filter(|_| !ranking.is_exact()).map(alike),
                between_halves: between(evidence, *ranking, &halves, top),
            });
        }
        bar.finish();
        let (blocks, of_groups) = (evidence.blocks, kind.is_large());
        Ok(Self { kind, blocks, of_groups, top, halvings: halves.len(), scores })
    }
}

/// Exact effects, on all prompts and on each draw of them.
struct Oracle {
    all: Vec<f64>,
    drawn: Vec<Vec<f64>>,
}

impl Oracle {
    fn of(evidence: &Evidence, exact: Ranking, draws: &Draws) -> Self {
        let scores = |counts| values(evidence, exact, counts);
        Self { all: scores(None), drawn: draws.iter().map(|counts| scores(Some(counts))).collect() }
    }

    /// A score against it; both are of the same draws.
    fn beside(&self, evidence: &Evidence, by: Ranking, draws: &Draws, top: usize) -> Alike {
        let own = both(&values(evidence, by, None), &self.all, top);
        let drawn = draws.iter().zip(&self.drawn);
        let drawn =
            drawn.map(|(counts, exact)| both(&values(evidence, by, Some(counts)), exact, top));
        alike(own, drawn.collect())
    }
}

fn values(evidence: &Evidence, by: Ranking, counts: Option<&[u32]>) -> Vec<f64> {
    evidence.scores(by, counts).into_values().collect()
}

fn both(a: &[f64], b: &[f64], top: usize) -> Both {
    [spearman(a, b), overlap(a, b, top)]
}

fn alike([spearman, overlap]: Both, drawn: Vec<Both>) -> Alike {
    let of = |which: fn(&Both) -> f64| drawn.iter().map(which).collect();
    Alike {
        spearman: Estimate::of(spearman, of(|both| both[0])),
        overlap: Estimate::of(overlap, of(|both| both[1])),
    }
}

fn between(
    evidence: &Evidence,
    by: Ranking,
    halves: &[[Vec<u32>; 2]],
    top: usize,
) -> Option<Alike> {
    let each = |[one, other]: &[Vec<u32>; 2]| {
        let [one, other] = [one, other].map(|half| values(evidence, by, Some(half)));
        both(&one, &other, top)
    };
    let found: Vec<Both> = halves.iter().map(each).collect();
    let count = found.len() as f64;
    let mean = |which: fn(&Both) -> f64| found.iter().map(which).sum::<f64>() / count;
    let means = [mean(|both| both[0]), mean(|both| both[1])];
    (!found.is_empty()).then(|| alike(means, found))
}

/// Random halves of the blocks, as counts; none of fewer than two.
fn halvings(blocks: usize, dice: &mut Dice) -> Vec<[Vec<u32>; 2]> {
    let mut halve = || {
        let mut order: Vec<usize> = (0..blocks).collect();
        dice.shuffle(&mut order);
        let mut halves = [vec![0; blocks], vec![0; blocks]];
        for (number, block) in order.into_iter().enumerate() {
            let [one, other] = &mut halves;
            let half = if number < blocks / 2 { one } else { other };
            half.get_mut(block).into_iter().for_each(|count| *count = 1);
        }
        halves
    };
    let count = if blocks < 2 { 0 } else { HALVINGS };
    (0..count).map(|_| halve()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_hold_every_block_once() {
        for blocks in [2, 5, 16] {
            let halves = halvings(blocks, &mut Dice::new(1, "halves", 0));
            assert_eq!(halves.len(), HALVINGS);
            for [one, other] in halves {
                assert!(one.iter().zip(&other).all(|(a, b)| a + b == 1));
                assert_eq!(one.iter().sum::<u32>() as usize, blocks / 2);
            }
        }
        assert!(halvings(1, &mut Dice::new(1, "halves", 0)).is_empty());
    }
}

//! Whether the prompts that came last are of another kind than those before them.
//!
//! Prompts come in strata by generation ([`mix`](crate::mix)), and units have a score on each. The mask that the older
//! strata alone would draw was made for them: where the summed effect of what it cuts is another on the newest stratum,
//! beyond what the drawing of prompts explains, the mix has shifted. The interval is that of the evidence drawn anew by
//! prompt ([`resample`](crate::resample)), masks and all. Effects of single units stand for those of whole masks, which
//! cost more. Nothing is decided by it: every stratum gets its share of the exact runs, shifted or not.

use crate::combine::Score;
use crate::controlled::{Parts, Say, parts};
use crate::mask::{Budget, build};
use crate::mix::Stratum;
use crate::resample::Resampled;
use crate::{Split, State};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use uspx_domain::Unit;

/// Fewer prompts of known scores say nothing.
const LEAST_PROMPTS: usize = 8;
/// The 99.5 % point of Student's distribution with one degree of freedom less than there are replicates: it is looked at
/// with every mask that is drawn, so that 95 of 100 would not do.
const SURE: f64 = 2.807;

/// The newest prompts beside the older ones. Rises are summed effects of single units, in nats per response token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// The generation of the newest.
    pub generation: u32,
    /// Train prompts that are newest.
    pub newest: u32,
    /// Those before them.
    pub older: u32,
    /// What of all losses the newest are.
    pub share: f64,
    /// What the mask costs that the older ones alone would draw.
    pub by_older: Rises,
    /// What that costs more on the newest.
    pub change: f64,
    /// The lower end of the change's 99 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Whether the mix has shifted: the interval leaves 0 out.
    pub drifted: bool,
    /// What the mask of the day costs.
    pub by_mask: Rises,
    /// What the mask costs that the newest alone would draw.
    pub by_newest: Rises,
}

/// What a mask costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rises {
    /// On the older prompts.
    pub on_older: f64,
    /// On the newest.
    pub on_newest: f64,
}

impl Drift {
    /// Of the state's campaign, with its evidence drawn anew; none where all prompts are of one age, or too little is
    /// known of the newest.
    pub fn of(state: &State, resampled: &Resampled) -> Option<Self> {
        let (campaign, drawn) = (state.campaign()?, state.mask()?);
        let budget = Budget::of(campaign);
        let parts = parts(state, Say::Whole)?;
        let sides = Sides::of(&parts)?;
        let (newest, older) = sides.strata.split_last()?;
        let known = &state.by_prompt().control;
        if newest.prompts.iter().filter(|at| known.knows(**at)).count() < LEAST_PROMPTS {
            return None;
        }
        let generation = campaign.live().filter(|(_, p)| p.split == Split::Train);
        let by_older = sides.rises(&build(&budget, &sides.older));
        let change = by_older.on_newest - by_older.on_older;
        let half = SURE * deviation(&changes(&budget, resampled)?);
        Some(Self {
            generation: generation.map(|(_, p)| p.generation).max()?,
            newest: newest.prompts.len() as u32,
            older: older.iter().map(|stratum| stratum.prompts.len() as u32).sum(),
            share: newest.weight,
            by_older,
            change,
            low: change - half,
            high: change + half,
            drifted: change.abs() > half,
            by_mask: sides.rises(&budget.kept(&drawn.mask)),
            by_newest: sides.rises(&build(&budget, &sides.newest)),
        })
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (newest, share) = (self.newest, 100.0 * self.share);
        let kind = match self.drifted {
            true => "are of another kind than",
            false => "are, as far as can be told, of the kind of",
        };
        let Self { change, low, high, .. } = self;
        write!(
            f,
            "the newest {newest} prompts ({share:.0} % of what counts) {kind} the {} before them: what those alone would \
             cut costs {change:+.3} nats a token more on them (99 % interval {low:+.3} to {high:+.3})",
            self.older
        )?;
        if !self.drifted {
            return Ok(());
        }
        let (now, anew) = (self.by_mask.on_newest, self.by_newest.on_newest);
        write!(f, "; this mask costs {now:.3} there, one drawn for them alone {anew:.3}")
    }
}

/// The change in each replicate.
fn changes(budget: &Budget<'_>, resampled: &Resampled) -> Option<Vec<f64>> {
    let change = |parts: &Parts| {
        let sides = Sides::of(parts)?;
        let rises = sides.rises(&build(budget, &sides.older));
        Some(rises.on_newest - rises.on_older)
    };
    resampled.effects().iter().map(change).collect::<Option<Vec<f64>>>().filter(|all| all.len() > 1)
}

/// The standard deviation.
fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0)).sqrt()
}

/// Scores on the older strata together, and on the newest.
struct Sides<'a> {
    strata: &'a [Stratum],
    older: BTreeMap<Unit, Score>,
    newest: BTreeMap<Unit, Score>,
}

impl<'a> Sides<'a> {
    /// None where there is one stratum.
    fn of(parts: &'a Parts) -> Option<Self> {
        let (_, older) = parts.strata.split_last().filter(|(_, older)| !older.is_empty())?;
        let whole: f64 = older.iter().map(|stratum| stratum.weight).sum();
        let part = |own: &Vec<Score>| {
            let of = |(score, stratum): (&Score, &Stratum)| score.mean * stratum.weight / whole;
            own.iter().zip(older).map(of).sum::<f64>()
        };
        let plain = |mean| Score { mean, error: 0.0, effective: 0.0 };
        let last = |own: &Vec<Score>| own.last().map_or(0.0, |score| score.mean);
        Some(Self {
            strata: &parts.strata,
            older: parts.scores.iter().map(|(unit, own)| (*unit, plain(part(own)))).collect(),
            newest: parts.scores.iter().map(|(unit, own)| (*unit, plain(last(own)))).collect(),
        })
    }

    /// What a mask costs that keeps these.
    fn rises(&self, kept: &BTreeSet<Unit>) -> Rises {
        let cost = |scores: &BTreeMap<Unit, Score>| {
            scores.iter().filter(|(unit, _)| !kept.contains(unit)).map(|(_, s)| s.mean).sum()
        };
        Rises { on_older: cost(&self.older), on_newest: cost(&self.newest) }
    }
}

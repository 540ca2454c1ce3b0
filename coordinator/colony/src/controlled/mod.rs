//! Scores from few exact effects and cheap scores of all prompts.
//!
//! *Control variates*: the effect on the prompts that were tried, corrected by how far the cheap score of these prompts
//! is from that of all (one slope for all units; Cochran 1977, *Sampling Techniques*, §7.5: the difference
//! estimator). *Shrinkage*: what comes of it is drawn towards what cheap scores predict, by as much as its noise exceeds
//! the prediction's doubt (Fay & Herriot 1979). Effects are as noisy as they are large, and predictions as far off, so
//! both variances go by size: a unit's noise by how far its *cheap* score goes up and down over all prompts, which a few
//! prompts cannot say of an effect that a few prompts make. On recorded effects of the shipped teacher this costs half of
//! what variances of the tried prompts do.
//!
//! All of it stratum by stratum ([`mix`](crate::mix)), the fit over all of them.

mod fit;
mod rows;
mod say;

pub use say::Say;
pub(crate) use say::told;

use crate::State;
use crate::combine::{Basis, Score, Scored};
use crate::mix::{Stratum, strata};
use fit::{Fit, median, noise, slope};
use rows::{Counted, Raw, Row, Tried};
use std::collections::BTreeMap;
use uspx_domain::Unit;

/// Units of known effect without which nothing is fitted.
const LEAST_UNITS: usize = 8;

/// What is known of every unit on each stratum.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The strata of which cheap scores are known.
    pub strata: Vec<Stratum>,
    /// Of each unit, its score on each of them.
    pub scores: BTreeMap<Unit, Vec<Score>>,
}

impl Parts {
    /// A unit's score on the prompts of all strata.
    pub fn whole(&self, parts: &[Score]) -> Score {
        let mut all = Score { mean: 0.0, error: 0.0, effective: 0.0 };
        for (part, stratum) in parts.iter().zip(&self.strata) {
            let error = stratum.weight * part.error;
            all.mean += stratum.weight * part.mean;
            all.error += error * error;
            all.effective += part.effective;
        }
        Score { error: all.error.sqrt(), ..all }
    }

    /// The same of every unit.
    pub(crate) fn wholes(&self) -> BTreeMap<Unit, Score> {
        self.scores.iter().map(|(unit, own)| (*unit, self.whole(own))).collect()
    }
}

/// Scores every unit of the campaign's kind, for the mask; none where too little is known for it.
pub fn score(state: &State) -> Option<Scored> {
    Some(Scored { basis: Basis::Typical, scores: parts(state, Say::Typical)?.wholes() })
}

/// The same, stratum by stratum, of what is summed over prompts.
pub fn parts(state: &State, say: Say) -> Option<Parts> {
    parts_of(state, say, |_| 1)
}

/// The same, as if each prompt, by its place, were there so many times.
pub(crate) fn parts_of(state: &State, say: Say, times: impl Fn(u32) -> u32) -> Option<Parts> {
    let campaign = state.campaign.as_ref()?;
    let units: Vec<Unit> = campaign.shape.units(campaign.mask.kind).collect();
    let (strata, raw) = known(state, &units, (say, times));
    let sum = |of: fn(&Raw) -> f64| raw.iter().map(of).sum::<f64>();
    let (own, other) = (sum(Raw::control), sum(|raw| raw.second));
    if own <= 0.0 {
        return None;
    }
    let slope = slope(raw.iter().filter_map(|raw| raw.beside.as_ref()));
    let scale = if other > 0.0 { own / other } else { 0.0 };
    let rows: Vec<Row> = raw.into_iter().map(|raw| raw.row(slope, scale)).collect();
    let size = median(rows.iter().map(|row| row.predictors[0]).collect());
    let noise = noise(&rows, (slope, size));
    let tried = rows.iter().filter_map(|row| Some((row, row.tried.as_ref()?)));
    let tried: Vec<(&Row, &Tried)> = tried.collect();
    if tried.len() < LEAST_UNITS {
        return None;
    }
    let fit = Fit::of(&rows, &tried, (noise, size));
    let mut scores: BTreeMap<Unit, Vec<Score>> = BTreeMap::new();
    for row in &rows {
        scores.entry(row.unit).or_default().push(fit.posterior(row, noise));
    }
    Some(Parts { strata, scores })
}

/// The strata of which the control is known, their weights 1 in all, and what is known of every unit on each.
fn known(
    state: &State,
    units: &[Unit],
    (say, times): (Say, impl Fn(u32) -> u32),
) -> (Vec<Stratum>, Vec<Raw>) {
    let known = state.by_prompt();
    let say = say.on(known.control.mean_tokens());
    let mut strata = strata(state);
    strata.retain(|stratum| stratum.prompts.iter().any(|at| known.control.knows(*at)));
    let whole: f64 = strata.iter().map(|s| s.weight).sum();
    strata.iter_mut().for_each(|s| s.weight /= whole);
    let mut rows = Vec::new();
    for stratum in &strata {
        let prompts: Counted = stratum.prompts.iter().map(|at| (*at, times(*at))).collect();
        rows.extend(units.iter().map(|unit| Raw::of(known, *unit, (&prompts, say))));
    }
    (strata, rows)
}

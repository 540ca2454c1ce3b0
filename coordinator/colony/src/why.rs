//! Why a mask keeps a unit or cuts it: its effect with an interval, which prompts need it, and what stands in its place
//! otherwise.

use crate::combine::{Basis, Score};
use crate::mask::Budget;
use crate::state::Effect;
use crate::{MaskVersion, State};
use serde::Serialize;
use std::collections::BTreeSet;
use uspx_domain::Unit;

/// Standard errors to either side of an interval that holds 95 of 100.
const Z: f64 = 1.96;

/// What an effect is, in nats per response token where anything exact is known: then that on a typical prompt
/// ([`Say::Typical`](crate::controlled::Say)).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// By how much the loss rises without the unit.
    pub mean: f64,
    /// The lower end of its 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Of a score that rests on `basis`.
    pub(crate) fn of(score: &Score, basis: Basis) -> Self {
        let Score { mean, error, .. } = *score;
        let [mean, low, high] = [mean, mean - Z * error, mean + Z * error].map(|v| basis.told(v));
        Self { mean, low, high }
    }

    /// Its lower and its upper end.
    pub(crate) fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }
}

/// By how much a prompt needs a unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Need {
    /// The prompt's id.
    pub prompt: String,
    /// By how much its loss rises without the unit, in nats per response token.
    pub rise: f64,
}

/// Why a unit is kept or cut.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// The unit.
    pub unit: String,
    /// The version of the mask.
    pub version: u32,
    /// Whether it is kept.
    pub kept: bool,
    /// Its place among all units, 1 the one that matters most.
    pub rank: usize,
    /// All units.
    pub units: usize,
    /// Its effect.
    pub effect: Interval,
    /// The effect at the cut.
    pub cut: f64,
    /// How sure it is that it lies on this side of the cut, from 0 to 1.
    pub confidence: f64,
    /// Prompts that it was tried on, of those that count.
    pub prompts_tried: usize,
    /// Those of them that need it most.
    pub needed_by: Vec<Need>,
    /// Those that do better without it.
    pub better_without: Vec<Need>,
    /// Who takes its side of the cut where it changes sides: of a kept unit the best that is cut, of a cut one the worst
    /// that is kept. A floor of its layer may ask for another.
    pub in_its_place: Option<String>,
}

/// Why the mask of the day keeps `unit` or cuts it, with at most so many prompts of each kind; none where the mask
/// says nothing of it.
pub fn why(state: &State, unit: Unit, most: usize) -> Option<Why> {
    let (campaign, drawn) = (state.campaign()?, state.mask()?);
    let score = drawn.scores.get(&unit)?;
    let kept = Budget::of(campaign).kept(&drawn.mask);
    let rises = needs(state, unit);
    let some = |rises: &mut dyn Iterator<Item = &Need>| rises.take(most).cloned().collect();
    Some(Why {
        unit: unit.to_string(),
        version: drawn.version,
        kept: kept.contains(&unit),
        rank: 1 + drawn.scores.values().filter(|other| other.mean > score.mean).count(),
        units: drawn.scores.len(),
        effect: Interval::of(score, drawn.basis),
        cut: drawn.told_cut(),
        confidence: drawn.confidence.get(&unit).copied().unwrap_or(0.0),
        prompts_tried: rises.len(),
        needed_by: some(&mut rises.iter().filter(|need| need.rise > 0.0)),
        better_without: some(&mut rises.iter().rev().filter(|need| need.rise < 0.0)),
        in_its_place: in_its_place(drawn, &kept, unit).map(|unit| unit.to_string()),
    })
}

/// By how much each prompt that a unit was tried on needs it, the most first.
pub(crate) fn needs(state: &State, unit: Unit) -> Vec<Need> {
    let Some(campaign) = state.campaign() else { return Vec::new() };
    let need = |(at, effect): (u32, Effect)| {
        Some(Need { prompt: campaign.id(at)?.to_owned(), rise: effect.per_token() })
    };
    let mut needs: Vec<Need> = state.effects(unit).filter_map(need).collect();
    needs.sort_by(|a, b| b.rise.total_cmp(&a.rise).then_with(|| a.prompt.cmp(&b.prompt)));
    needs
}

fn in_its_place(drawn: &MaskVersion, kept: &BTreeSet<Unit>, unit: Unit) -> Option<Unit> {
    let is_kept = kept.contains(&unit);
    let others = drawn.scores.iter().filter(|(other, _)| kept.contains(other) != is_kept);
    let others = others.map(|(other, score)| (*other, score.mean));
    let found = match is_kept {
        true => others.max_by(|a, b| a.1.total_cmp(&b.1)),
        false => others.min_by(|a, b| a.1.total_cmp(&b.1)),
    };
    found.map(|(other, _)| other)
}

//! What changed between two versions of the colony's mask, why, and for whom.

use crate::combine::Basis;
use crate::mask::Budget;
use crate::why::{Interval, Need, needs};
use crate::{MaskVersion, Record, State};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::Unit;

/// The state as it was when each of some versions of the mask was drawn, found while a ledger is folded.
#[derive(Debug, Default)]
pub struct Versions {
    state: State,
    found: BTreeMap<u32, State>,
    wanted: BTreeSet<u32>,
}

impl Versions {
    /// Looks for these.
    pub fn of(wanted: impl IntoIterator<Item = u32>) -> Self {
        Self { wanted: wanted.into_iter().collect(), ..Self::default() }
    }

    /// Takes a record in. Versions are counted anew in every campaign: those of the latest count.
    pub fn note(&mut self, record: &Record) {
        self.state.fold(record);
        if matches!(record, Record::Founded(_)) {
            self.found.clear();
        }
        let Some(version) = self.state.mask().map(|mask| mask.version) else { return };
        if self.wanted.contains(&version) && !self.found.contains_key(&version) {
            self.found.insert(version, self.state.clone());
        }
    }

    /// The state when that version was drawn.
    pub fn state(&self, version: u32) -> Option<&State> {
        self.found.get(&version)
    }

    /// What is known now.
    pub fn latest(&self) -> &State {
        &self.state
    }

    /// The number of the last version; none before the first.
    pub fn last(&self) -> Option<u32> {
        self.state.mask().map(|mask| mask.version)
    }
}

/// What a mask was drawn by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Drawn {
    /// The version.
    pub version: u32,
    /// What its scores rest on; those of two bases are of two scales.
    pub basis: Basis,
    /// The score at the cut.
    pub cut: f64,
}

impl Drawn {
    fn of(mask: &MaskVersion) -> Self {
        Self { version: mask.version, basis: mask.basis, cut: mask.told_cut() }
    }
}

/// A unit that changed sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changed {
    /// The unit.
    pub unit: String,
    /// Whether it is kept now.
    pub kept: bool,
    /// Its effect by the evidence of then.
    pub then: Option<Interval>,
    /// By that of now.
    pub now: Option<Interval>,
    /// The prompts that want it most, by their exact effects.
    pub needed_by: Vec<Need>,
}

/// What the whole change is to a prompt: the exact effects of the units that came, less those of the units that went, in
/// nats per response token. Above 0 the prompt gains.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flipped {
    /// The prompt's id.
    pub prompt: String,
    /// By what was known then; none where no unit had been tried on it.
    pub then: Option<f64>,
    /// By what is known now.
    pub now: f64,
    /// The changed units that were tried on it.
    pub tried: usize,
}

impl Flipped {
    /// Whether gain has become loss, or loss gain.
    pub fn has_turned(&self) -> bool {
        self.then.is_some_and(|then| then * self.now < 0.0)
    }

    fn by(&self) -> f64 {
        (self.now - self.then.unwrap_or(0.0)).abs()
    }
}

/// What changed between two versions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// The earlier one, or the one that was named first.
    pub then: Drawn,
    /// The other.
    pub now: Drawn,
    /// The units that changed sides: those that came, then those that went, the surest first.
    pub changed: Vec<Changed>,
    /// Prompts of which the evidence says otherwise now: first those to which the change has turned from gain to loss or
    /// from loss to gain, then those of whom it says more or less, by how much.
    pub flipped: Vec<Flipped>,
}

/// What changed from the mask of `then` to that of `now`, states of one campaign, with at most so many prompts of each
/// kind; none where one has no mask.
pub fn diff(then: &State, now: &State, most: usize) -> Option<Diff> {
    let (before, after) = (then.mask()?, now.mask()?);
    let kept =
        |state: &State, drawn: &MaskVersion| Some(Budget::of(state.campaign()?).kept(&drawn.mask));
    let (old, new) = (kept(then, before)?, kept(now, after)?);
    let sides: BTreeMap<Unit, bool> =
        old.symmetric_difference(&new).map(|unit| (*unit, new.contains(unit))).collect();
    let mut flipped = flipped(then, now, &sides);
    flipped.truncate(most);
    Some(Diff {
        then: Drawn::of(before),
        now: Drawn::of(after),
        changed: changed((before, after), &sides, |unit| {
            needs(now, unit).into_iter().filter(|need| need.rise > 0.0).take(most).collect()
        }),
        flipped,
    })
}

fn changed(
    (before, after): (&MaskVersion, &MaskVersion),
    sides: &BTreeMap<Unit, bool>,
    needed_by: impl Fn(Unit) -> Vec<Need>,
) -> Vec<Changed> {
    let away = |unit: &Unit| after.scores.get(unit).map_or(0.0, |s| (s.mean - after.cut).abs());
    let mut units: Vec<(Unit, bool)> = sides.iter().map(|(unit, kept)| (*unit, *kept)).collect();
    units.sort_by(|a, b| b.1.cmp(&a.1).then(away(&b.0).total_cmp(&away(&a.0))));
    let effect = |of: &MaskVersion, unit| of.scores.get(&unit).map(|s| Interval::of(s, of.basis));
    let one = |(unit, kept): (Unit, bool)| Changed {
        unit: unit.to_string(),
        kept,
        then: effect(before, unit),
        now: effect(after, unit),
        needed_by: needed_by(unit),
    };
    units.into_iter().map(one).collect()
}

/// Prompts of which the evidence has changed, the most telling first.
fn flipped(then: &State, now: &State, sides: &BTreeMap<Unit, bool>) -> Vec<Flipped> {
    let (old, new) = (gains(then, sides), gains(now, sides));
    let one = |(at, (gain, tried)): (&u32, &(f64, usize))| {
        let prompt = now.campaign()?.id(*at)?.to_owned();
        let then = old.get(at).map(|(gain, _)| *gain);
        Some(Flipped { prompt, then, now: *gain, tried: *tried })
    };
    let mut all: Vec<Flipped> = new.iter().filter_map(one).filter(|f| f.by() > 0.0).collect();
    all.sort_by(|a, b| {
        let turned = b.has_turned().cmp(&a.has_turned());
        turned.then(b.by().total_cmp(&a.by())).then_with(|| a.prompt.cmp(&b.prompt))
    });
    all
}

/// What a change is to each prompt that one of its units was tried on, by place, and how many were.
fn gains(state: &State, sides: &BTreeMap<Unit, bool>) -> BTreeMap<u32, (f64, usize)> {
    let mut gains: BTreeMap<u32, (f64, usize)> = BTreeMap::new();
    for (unit, kept) in sides {
        for (at, effect) in state.effects(*unit) {
            let (gain, tried) = gains.entry(at).or_default();
            *gain += if *kept { effect.per_token() } else { -effect.per_token() };
            *tried += 1;
        }
    }
    gains
}

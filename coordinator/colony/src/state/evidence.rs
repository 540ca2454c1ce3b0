//! Exact sums per unit and statistic, and their evaporation.
//!
//! Within an epoch every sum is of integers, so order cannot matter; between epochs N ← λN + n, W ←
//! λ²W + n and each other sum S ← λS + Σ, in integers too (invariant 1).

use super::layers::Layers;
use crate::{Fixed, PlannedTask, Share};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use uspx_domain::{
    Ablate, Cut, Deposit, Digest, LossRow, Outcome, PromptTokens, Statistic, Unit, Work,
};

/// Evaporated sums over prompts: x is the prompt's value (summed over its response tokens), t their
/// number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// N: prompts.
    pub n: Fixed,
    /// W: prompts, decayed by λ²; N²/W is the effective sample.
    pub w: Fixed,
    /// Σx.
    pub x: Fixed,
    /// Σx².
    pub xx: Fixed,
    /// Σt.
    pub t: Fixed,
    /// Σt².
    pub tt: Fixed,
    /// Σxt.
    pub xt: Fixed,
}

impl Sums {
    /// One prompt's value.
    pub fn observe(&mut self, x: f64, tokens: u32) {
        let t = f64::from(tokens);
        let one = Fixed::whole(1);
        self.add(&Self {
            n: one,
            w: one,
            x: Fixed::of(x),
            xx: Fixed::of(x * x),
            t: Fixed::whole(tokens),
            tt: Fixed::of(t * t),
            xt: Fixed::of(x * t),
        });
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.w += other.w;
        self.x += other.x;
        self.xx += other.xx;
        self.t += other.t;
        self.tt += other.tt;
        self.xt += other.xt;
    }

    pub(super) fn evaporate(&mut self, lambda: Share) {
        for sum in [&mut self.n, &mut self.x, &mut self.xx, &mut self.t, &mut self.tt, &mut self.xt]
        {
            *sum = sum.times(lambda);
        }
        self.w = self.w.times(lambda).times(lambda);
    }
}

/// Of each single unit that was cut, by how much that raises the loss of each prompt: nats, and response tokens.
pub(super) fn rises<'a, P>(
    ablate: &'a Ablate<P>,
    rows: &'a [LossRow],
) -> impl Iterator<Item = (Unit, impl Iterator<Item = (f64, u32)> + 'a)> + 'a {
    let rows = rows.split_first().into_iter();
    let cuts = rows.flat_map(|(clean, rows)| ablate.cuts.iter().zip(rows).map(move |r| (clean, r)));
    cuts.filter_map(|(clean, (cut, row))| {
        let Cut::Unit(unit) = cut else { return None };
        let prompts = row.nats.iter().zip(&clean.nats).zip(&clean.prompts);
        let rise = |((cut, clean), prompt): ((&f32, &f32), &PromptTokens)| {
            (f64::from(*cut) - f64::from(*clean), prompt.tokens)
        };
        Some((*unit, prompts.map(rise)))
    })
}

/// The evidence on every unit, by statistic.
///
/// In a snapshot it is the map of single units where there are no others, as it always was; else that and the layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trails {
    units: ByUnit,
    /// Of kinds with many units.
    layers: Layers,
}

type ByUnit = BTreeMap<Statistic, BTreeMap<Unit, Sums>>;

impl Serialize for Trails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.layers.is_empty() {
            true => self.units.serialize(serializer),
            false => (&self.units, &self.layers).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Trails {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

/// Reads both forms.
struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Trails;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sums by statistic and unit, or these and sums by layer")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Trails, A::Error> {
        let units = ByUnit::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Trails { units, layers: Layers::default() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Trails, A::Error> {
        let (units, layers) = Deserialize::deserialize(SeqAccessDeserializer::new(seq))?;
        Ok(Trails { units, layers })
    }
}

impl Trails {
    /// One unit's sums.
    pub fn get(&self, statistic: Statistic, unit: Unit) -> Option<Sums> {
        let single = self.units.get(&statistic).and_then(|units| units.get(&unit)).copied();
        let (Some(mut sums), Some(more)) = (single, self.layers.get(statistic, unit)) else {
            return single.or_else(|| self.layers.get(statistic, unit));
        };
        sums.add(&more);
        Some(sums)
    }

    /// The digest of all sums: equal evidence, equal digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&rmp_serde::to_vec_named(self).unwrap_or_default())
    }

    /// Whether there is no evidence at all.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.layers.is_empty()
    }

    /// Lets an epoch act: what was decays once, what came is added.
    pub fn close(&mut self, lambda: Share, gathered: Trails) {
        self.layers.close(lambda, gathered.layers);
        self.units
            .values_mut()
            .flat_map(|units| units.values_mut())
            .for_each(|sums| sums.evaporate(lambda));
        for (statistic, units) in gathered.units {
            for (unit, sums) in units {
                self.entry(statistic, unit).add(&sums);
            }
        }
    }

    fn entry(&mut self, statistic: Statistic, unit: Unit) -> &mut Sums {
        self.units.entry(statistic).or_default().entry(unit).or_default()
    }

    /// Puts other sums in the place of a unit's.
    pub(super) fn replace(&mut self, statistic: Statistic, unit: Unit, sums: Sums) {
        *self.entry(statistic, unit) = sums;
    }

    /// Adds what an answer says about single units.
    pub(crate) fn gather(&mut self, task: &PlannedTask, outcome: &Outcome) {
        match (&task.work, outcome) {
            (Work::Estimate(_), Outcome::Scores(deposit)) => self.take_in(deposit),
            (Work::Ablate(ablate), Outcome::Losses(rows)) => {
                for (unit, rises) in rises(ablate, rows) {
                    let mut rises = rises.peekable();
                    if rises.peek().is_some() {
                        let sums = self.entry(Statistic::EXACT, unit);
                        rises.for_each(|(rise, tokens)| sums.observe(rise, tokens));
                    }
                }
            }
            _ => {}
        }
    }

    /// Adds what a deposit says.
    pub fn take_in(&mut self, deposit: &Deposit) {
        // Columns without values say nothing, not even that the unit was looked at.
        for column in deposit.columns.iter().filter(|c| !c.values.is_empty()) {
            let sums = self.entry(column.statistic, column.unit);
            for (value, prompt) in column.values.iter().zip(&deposit.prompts) {
                sums.observe(f64::from(*value), prompt.tokens);
            }
        }
        for moments in deposit.moments.iter().filter(|_| !deposit.prompts.is_empty()) {
            self.layers.gather(moments, &deposit.prompts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uspx_domain::{Column, Moments, UnitKind};

    /// The two forms of a deposit say the same.
    #[test]
    fn moments_add_up_to_what_values_do() {
        let unit = Unit { kind: UnitKind::Channel, layer: 0, index: 0 };
        let prompts: Vec<PromptTokens> =
            [3, 8, 5].map(|tokens| PromptTokens { id: tokens.to_string(), tokens }).to_vec();
        let (statistic, values) = (Statistic::ATP, [0.5, -2.25, 4.0]);
        let column = Column { unit, statistic, values: values.map(|v| v as f32).to_vec() };
        let of = (unit.kind, unit.layer, statistic);
        let moments = Moments::of(of, [&values[..]].into_iter(), &[3, 8, 5]);
        let gathered = |deposit: Deposit| {
            let mut trails = Trails::default();
            trails.take_in(&deposit);
            trails.get(statistic, unit)
        };
        let columns = Deposit { prompts: prompts.clone(), columns: vec![column], moments: vec![] };
        let summed = Deposit { prompts, columns: vec![], moments: vec![moments] };
        assert_eq!(gathered(columns.clone()), gathered(summed.clone()));
        let mut trails = Trails::default();
        for deposit in [columns, summed] {
            trails.take_in(&deposit);
            let bytes = rmp_serde::to_vec_named(&trails).unwrap();
            assert_eq!(rmp_serde::from_slice::<Trails>(&bytes).unwrap(), trails);
        }
    }

    proptest! {
        /// Against the recurrences of the method, in floats.
        #[test]
        fn evaporation_follows_the_recurrences(
            epochs in prop::collection::vec(prop::collection::vec((-50f32..50.0, 1u32..60), 0..20), 1..12),
        ) {
            let lambda = Share::percent(98);
            let unit = Unit { kind: uspx_domain::UnitKind::Expert, layer: 0, index: 0 };
            let mut trails = Trails::default();
            let mut want = [0.0f64; 6];
            for epoch in &epochs {
                let mut gathered = Trails::default();
                let decay = [0.98, 0.98 * 0.98, 0.98, 0.98, 0.98, 0.98];
                want.iter_mut().zip(decay).for_each(|(w, d)| *w *= d);
                for (x, t) in epoch {
                    gathered.entry(Statistic::EXACT, unit).observe(f64::from(*x), *t);
                    let (x, t) = (f64::from(*x), f64::from(*t));
                    want.iter_mut().zip([1.0, 1.0, x, x * x, t, x * t]).for_each(|(w, v)| *w += v);
                }
                trails.close(lambda, gathered);
            }
            let sums = trails.get(Statistic::EXACT, unit).unwrap_or_default();
            let got = [sums.n, sums.w, sums.x, sums.xx, sums.t, sums.xt].map(Fixed::to_f64);
            for (got, want) in got.iter().zip(want) {
                prop_assert!((got - want).abs() < 1e-6 * (1.0 + want.abs()), "{} {}", got, want);
            }
        }
    }
}

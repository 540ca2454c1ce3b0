//! Sums of kinds with many units, a layer at a time: what a deposit's prompts are is the same for all units of it, so it is
//! kept once, and a unit takes three numbers (48 bytes). Of 2.2 million channels that is 106 MB a statistic.

use super::Sums;
use crate::{Fixed, Share};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use uspx_domain::{Moments, PromptTokens, Statistic, Unit, UnitKind};

/// Bytes of a number in a snapshot.
const BYTES: usize = size_of::<i128>();

/// Numbers of a layer's units, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Column(Vec<Fixed>);

/// Evaporated sums of a layer's units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Layer {
    /// n, W, Σt and Σt², which all units share.
    shared: Sums,
    x: Column,
    xx: Column,
    xt: Column,
}

/// Which units of which statistic.
type Place = (Statistic, UnitKind, u32);

/// By statistic, kind and layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layers(BTreeMap<Place, Layer>);

impl Layers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A unit's sums.
    pub(super) fn get(&self, statistic: Statistic, unit: Unit) -> Option<Sums> {
        let layer = self.0.get(&(statistic, unit.kind, unit.layer))?;
        let of = |column: &Column| column.0.get(unit.index as usize).copied();
        Some(Sums { x: of(&layer.x)?, xx: of(&layer.xx)?, xt: of(&layer.xt)?, ..layer.shared })
    }

    /// Adds what a deposit says of a layer's units on these prompts.
    pub(super) fn gather(&mut self, moments: &Moments, prompts: &[PromptTokens]) {
        let place = (moments.statistic, moments.kind, moments.layer);
        let layer = self.0.entry(place).or_default();
        prompts.iter().for_each(|p| layer.shared.observe(0.0, p.tokens));
        let told = [&moments.x, &moments.xx, &moments.xt];
        for (column, values) in layer.columns().into_iter().zip(told) {
            column.add(values.iter().map(|value| Fixed::of(f64::from(*value))));
        }
    }

    /// Lets an epoch act: what was decays once, what came is added.
    pub(super) fn close(&mut self, lambda: Share, gathered: Self) {
        for layer in self.0.values_mut() {
            layer.shared.evaporate(lambda);
            for column in layer.columns() {
                column.0.iter_mut().for_each(|sum| *sum = sum.times(lambda));
            }
        }
        for (place, new) in gathered.0 {
            let layer = self.0.entry(place).or_default();
            layer.shared.add(&new.shared);
            let columns = layer.columns().into_iter().zip([&new.x, &new.xx, &new.xt]);
            columns.for_each(|(column, new)| column.add(new.0.iter().copied()));
        }
    }
}

impl Layer {
    fn columns(&mut self) -> [&mut Column; 3] {
        [&mut self.x, &mut self.xx, &mut self.xt]
    }
}

impl Column {
    fn add(&mut self, more: impl ExactSizeIterator<Item = Fixed>) {
        if self.0.len() < more.len() {
            self.0.resize(more.len(), Fixed::ZERO);
        }
        self.0.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteBuf::deserialize(deserializer)?;
        let (numbers, rest) = bytes.as_chunks::<BYTES>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("a layer's sums are cut off"));
        }
        Ok(Self(numbers.iter().map(|bytes| Fixed::from_le_bytes(*bytes)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: (UnitKind, u32, Statistic) = (UnitKind::Channel, 3, Statistic::ATP);

    fn told(tokens: &[u32], values: [&[f64]; 2]) -> (Moments, Vec<PromptTokens>) {
        let prompt = |tokens: &u32| PromptTokens { id: tokens.to_string(), tokens: *tokens };
        (Moments::of(WHAT, values.into_iter(), tokens), tokens.iter().map(prompt).collect())
    }

    /// Unit by unit, as for kinds with few units.
    #[test]
    fn layers_say_what_single_units_would() {
        let lambda = Share::percent(90);
        let epochs = [told(&[3, 8], [&[1.0, -2.0], &[0.5, 0.25]]), told(&[5], [&[4.0], &[0.0]])];
        let (mut layers, mut single) = (Layers::default(), [Sums::default(); 2]);
        for (moments, prompts) in &epochs {
            let mut gathered = Layers::default();
            gathered.gather(moments, prompts);
            layers.close(lambda, gathered);
            for ((_, [x, xx, xt]), sums) in moments.units().zip(&mut single) {
                sums.evaporate(lambda);
                let mut new = Sums::default();
                prompts.iter().for_each(|p| new.observe(0.0, p.tokens));
                let of = |v: f32| Fixed::of(f64::from(v));
                sums.add(&Sums { x: of(x), xx: of(xx), xt: of(xt), ..new });
            }
        }
        let unit = |index| Unit { kind: WHAT.0, layer: WHAT.1, index };
        let got = [0, 1].map(|index| layers.get(WHAT.2, unit(index)).unwrap());
        assert_eq!(got, single);
        assert_eq!(layers.get(WHAT.2, unit(2)), None);
        assert_eq!(layers.get(Statistic::EASY_EP, unit(0)), None);

        let bytes = rmp_serde::to_vec_named(&layers).unwrap();
        assert_eq!(rmp_serde::from_slice::<Layers>(&bytes).unwrap(), layers);
    }

    /// The order of an epoch's answers cannot matter.
    #[test]
    fn invariant_1_layers_add_up_in_any_order() {
        let (a, b) = (told(&[3], [&[0.1], &[7.5]]), told(&[9, 2], [&[0.7, 1e-3], &[2.5, 3.5]]));
        let sum = |order: [&(Moments, Vec<PromptTokens>); 2]| {
            let mut layers = Layers::default();
            order.iter().for_each(|(moments, prompts)| layers.gather(moments, prompts));
            rmp_serde::to_vec_named(&layers).unwrap()
        };
        assert!(sum([&a, &b]) == sum([&b, &a]));
    }
}

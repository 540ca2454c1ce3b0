//! Sums per unit, statistic and prompt while a probe runs, and the form in which they are told.

use crate::batching::at_members;
use std::ops::Range;
use uspx_domain::{Column, Deposit, ModelShape, Moments, Statistic, Unit, UnitKind};

/// Sums of some statistics of all units of one kind, `[layer][unit][statistic][prompt]`, flat.
#[derive(Debug)]
pub(crate) struct UnitSums {
    kind: UnitKind,
    statistics: Vec<Statistic>,
    /// Of each layer, the units before it and its own.
    layers: Vec<Range<usize>>,
    prompts: usize,
    values: Vec<f64>,
}

/// Of each layer, the units of a kind before it and its own. Layers outside of `layers` count as
/// empty.
pub(crate) fn places(kind: UnitKind, shape: &ModelShape, layers: &Range<u32>) -> Vec<Range<usize>> {
    let (mut units, mut places) = (0, Vec::new());
    for (layer, width) in (0..).zip(shape.widths(kind)) {
        let width = if layers.contains(&layer) { width as usize } else { 0 };
        places.push(units..units + width);
        units += width;
    }
    places
}

/// The units of all layers.
pub(crate) fn count(places: &[Range<usize>]) -> usize {
    places.last().map_or(0, |last| last.end)
}

impl UnitSums {
    /// Nothing yet. Layers outside of `layers` count as empty.
    pub(crate) fn new(
        (kind, statistics): (UnitKind, &[Statistic]),
        shape: &ModelShape,
        layers: &Range<u32>,
        prompts: usize,
    ) -> Self {
        let layers = places(kind, shape, layers);
        let values = vec![0.0; count(&layers) * statistics.len() * prompts];
        Self { kind, statistics: statistics.to_vec(), layers, prompts, values }
    }

    /// The same units and statistics, nothing yet, of so many prompts.
    pub(crate) fn blank(&self, prompts: usize) -> Self {
        let (statistics, layers) = (self.statistics.clone(), self.layers.clone());
        let values = vec![0.0; count(&layers) * statistics.len() * prompts];
        Self { kind: self.kind, statistics, layers, prompts, values }
    }

    /// Adds a prompt's value of each statistic, in their order. What lies outside is passed over.
    pub(crate) fn add(
        &mut self,
        (layer, unit): (usize, u32),
        prompt: usize,
        values: impl IntoIterator<Item = f64>,
    ) {
        let place = self.layers.get(layer).filter(|range| (unit as usize) < range.len());
        let Some(first) = place.map(|range| range.start + unit as usize) else { return };
        for (statistic, value) in (0..self.statistics.len()).zip(values) {
            let at = (first * self.statistics.len() + statistic) * self.prompts + prompt;
            if let Some(sum) = self.values.get_mut(at) {
                *sum += value;
            }
        }
    }

    /// Puts a batch's sums at the places of its prompts.
    pub(crate) fn take(&mut self, batch: &Self, members: &[usize]) {
        at_members(&mut self.values, &batch.values, self.prompts, members);
    }

    /// Adds what was found to a deposit on prompts of so many response tokens: columns of kinds
    /// with few units, moments of the others.
    pub(crate) fn tell(&self, tokens: &[u32], deposit: &mut Deposit) {
        for (layer, range) in (0..).zip(&self.layers).filter(|(_, range)| !range.is_empty()) {
            for (at, statistic) in self.statistics.iter().enumerate() {
                let rows = range.clone().map(|unit| self.row(unit, at));
                if self.kind.is_large() {
                    let of = (self.kind, layer, *statistic);
                    deposit.moments.push(Moments::of(of, rows, tokens));
                } else {
                    deposit.columns.extend((0..).zip(rows).map(|(index, row)| Column {
                        unit: Unit { kind: self.kind, layer, index },
                        statistic: *statistic,
                        values: row.iter().map(|v| *v as f32).collect(),
                    }));
                }
            }
        }
    }

    /// A unit's values of one statistic, one per prompt.
    fn row(&self, unit: usize, statistic: usize) -> &[f64] {
        let start = (unit * self.statistics.len() + statistic) * self.prompts;
        self.values.get(start..start + self.prompts).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{LayerShape, MlpShape};

    fn shape() -> ModelShape {
        let dense = LayerShape::new(2, MlpShape::Dense { channels: 3 });
        let experts = MlpShape::Experts { experts: 2, top_k: 1, channels: 4 };
        ModelShape { layers: vec![dense, LayerShape::new(2, experts)] }
    }

    #[test]
    fn few_units_are_told_prompt_by_prompt_and_only_where_they_are() {
        let two = [Statistic::COUNT, Statistic::GATE_MASS];
        let mut sums = UnitSums::new((UnitKind::Expert, &two), &shape(), &(0..2), 2);
        let mut batch = sums.blank(1);
        batch.add((1, 1), 0, [1.0, 0.25]);
        batch.add((1, 1), 0, [1.0, 0.5]);
        batch.add((1, 2), 0, [9.0, 9.0]);
        batch.add((0, 0), 0, [9.0, 9.0]);
        sums.take(&batch, &[1]);
        let mut deposit = Deposit::default();
        sums.tell(&[4, 5], &mut deposit);
        let told: Vec<(u32, u32, &str, Vec<f32>)> = deposit
            .columns
            .iter()
            .map(|c| (c.unit.layer, c.unit.index, c.statistic.name(), c.values.clone()))
            .collect();
        let zero = || vec![0.0, 0.0];
        let want = [
            (1, 0, "count", zero()),
            (1, 1, "count", vec![0.0, 2.0]),
            (1, 0, "gate_mass", zero()),
            (1, 1, "gate_mass", vec![0.0, 0.75]),
        ];
        assert_eq!(told, want);
    }

    #[test]
    fn many_units_are_told_as_moments_of_the_layers_asked_for() {
        let kind = (UnitKind::Channel, &[Statistic::ATP][..]);
        let mut sums = UnitSums::new(kind, &shape(), &(0..1), 2);
        sums.add((0, 2), 0, [0.5]);
        sums.add((0, 2), 1, [-2.0]);
        let mut deposit = Deposit::default();
        sums.tell(&[4, 5], &mut deposit);
        let [moments] = deposit.moments.as_slice() else { panic!("{deposit:?}") };
        assert_eq!((moments.layer, &moments.x), (0, &vec![0.0, 0.0, -1.5]));
        assert_eq!((moments.xx[2], moments.xt[2]), (4.25, -8.0));
        let mut none = Deposit::default();
        UnitSums::new(kind, &shape(), &(1..2), 2).tell(&[4, 5], &mut none);
        assert_eq!(none, Deposit::default());
    }
}

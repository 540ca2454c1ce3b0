//! Moments of kinds with many units while they are added up. A value per channel and prompt would
//! not fit: of gpt-oss-20b's experts they are 2.2 million channels.

use crate::Result;
use crate::sums::{count, places};
use candle_core::{DType, Tensor};
use std::ops::Range;
use uspx_domain::{Deposit, ModelShape, Moments, Statistic, UnitKind};

/// Σx, Σx² and Σxt of each unit and statistic, `[statistic][unit]`, x a prompt's value, t its response
/// tokens.
#[derive(Debug, Clone)]
pub(crate) struct RunningMoments {
    kind: UnitKind,
    statistics: Vec<Statistic>,
    /// Of each layer, the units before it and its own.
    layers: Vec<Range<usize>>,
    sums: Vec<[f64; 3]>,
}

impl RunningMoments {
    /// Nothing yet. Layers outside of `layers` count as empty.
    pub(crate) fn new(
        (kind, statistics): (UnitKind, &[Statistic]),
        shape: &ModelShape,
        layers: &Range<u32>,
    ) -> Self {
        let layers = places(kind, shape, layers);
        let sums = vec![[0.0; 3]; count(&layers) * statistics.len()];
        Self { kind, statistics: statistics.to_vec(), layers, sums }
    }

    /// The same units and statistics, nothing yet.
    pub(crate) fn blank(&self) -> Self {
        Self { sums: vec![[0.0; 3]; self.sums.len()], ..self.clone() }
    }

    /// Adds one statistic, by its place, of the units of `layer` from `first` on: `values` are a
    /// row a prompt, `[P, units]`; all that the prompts have of it.
    pub(crate) fn add(
        &mut self,
        (layer, first, statistic): (usize, usize, usize),
        values: &Tensor,
        tokens: &[u32],
    ) -> Result<()> {
        let Some(place) = self.layers.get(layer).filter(|range| !range.is_empty()) else {
            return Ok(());
        };
        let start = statistic * count(&self.layers) + place.start + first;
        let rows: Vec<Vec<f32>> = values.to_dtype(DType::F32)?.to_vec2()?;
        for (row, tokens) in rows.iter().zip(tokens) {
            let sums = self.sums.get_mut(start..start + row.len()).unwrap_or_default();
            for ([x, xx, xt], value) in sums.iter_mut().zip(row) {
                let value = f64::from(*value);
                *x += value;
                *xx += value * value;
                *xt += value * f64::from(*tokens);
            }
        }
        Ok(())
    }

    /// Adds a batch's.
    pub(crate) fn take(&mut self, batch: &Self) {
        for (into, from) in self.sums.iter_mut().zip(&batch.sums) {
            into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
        }
    }

    /// Adds what was found to a deposit.
    pub(crate) fn tell(&self, deposit: &mut Deposit) {
        let units = count(&self.layers);
        for (layer, range) in (0..).zip(&self.layers).filter(|(_, range)| !range.is_empty()) {
            for (at, statistic) in self.statistics.iter().enumerate() {
                let own = at * units + range.start..at * units + range.end;
                let sums = self.sums.get(own).unwrap_or_default();
                let of = |which: fn(&[f64; 3]) -> f64| -> Vec<f32> {
                    sums.iter().map(|sum| which(sum) as f32).collect()
                };
                let (x, xx, xt) = (of(|s| s[0]), of(|s| s[1]), of(|s| s[2]));
                let (kind, statistic) = (self.kind, *statistic);
                deposit.moments.push(Moments { kind, layer, statistic, x, xx, xt });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use uspx_domain::{LayerShape, MlpShape};

    /// Two batches of prompts, against the moments of all values at once.
    #[test]
    fn batches_add_up_to_the_moments_of_all_prompts() {
        let dense = LayerShape::new(2, MlpShape::Dense { channels: 4 });
        let shape = ModelShape { layers: vec![dense, dense] };
        let of = (UnitKind::Channel, &[Statistic::ATP, Statistic::ATP_ABS][..]);
        let mut all = RunningMoments::new(of, &shape, &(1..2));
        let values = |p: usize, u: usize| (p * 5 + u) as f32 - 6.0;
        for prompts in [0..2, 2..5] {
            let mut batch = all.blank();
            let tokens: Vec<u32> = prompts.clone().map(|p| 3 + p as u32).collect();
            for (first, units) in [(0, 1usize), (1, 3)] {
                let rows: Vec<f32> = prompts
                    .clone()
                    .flat_map(|p| (first..first + units).map(move |u| values(p, u)))
                    .collect();
                let rows = Tensor::from_vec(rows, (tokens.len(), units), &Device::Cpu).unwrap();
                batch.add((1, first, 0), &rows, &tokens).unwrap();
                batch.add((1, first, 1), &rows.abs().unwrap(), &tokens).unwrap();
                batch.add((0, first, 0), &rows, &tokens).unwrap();
            }
            all.take(&batch);
        }
        let mut deposit = Deposit::default();
        all.tell(&mut deposit);
        let tokens: Vec<u32> = (3..8).collect();
        let of_unit = |u: usize| (0..5).map(|p| f64::from(values(p, u))).collect::<Vec<_>>();
        let rows: Vec<Vec<f64>> = (0..4).map(of_unit).collect();
        let want = Moments::of(
            (UnitKind::Channel, 1, Statistic::ATP),
            rows.iter().map(Vec::as_slice),
            &tokens,
        );
        assert_eq!(deposit.moments.len(), 2);
        assert_eq!(deposit.moments[0], want);
        assert_eq!(deposit.moments[1].xx, want.xx);
    }
}

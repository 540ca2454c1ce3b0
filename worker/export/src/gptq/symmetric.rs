//! Symmetric groups: a scale for each output and group, a zero point of 8.
#![allow(clippy::indexing_slicing)] // Bounds: `Steps::find` laid out the scales of the group that is asked for.

use super::Steps;
use crate::grid::{self, ScaleRule};
use crate::quantised::QuantLinear;
use crate::{ExportError, Result};
use half::f16;

/// The scales found so far.
pub(super) struct Symmetric {
    group: usize,
    rule: ScaleRule,
    /// Of each group, `[outputs]`; empty for one that was not asked for.
    scales: Vec<Vec<f16>>,
}

impl Symmetric {
    pub(super) fn new(group: usize, rule: ScaleRule) -> Self {
        Self { group, rule, scales: Vec::new() }
    }

    /// Codes `[outputs, inputs]` with these scales.
    pub(super) fn linear(self, inputs: usize, codes: Vec<u8>) -> Result<QuantLinear> {
        let outputs = codes.len() / inputs;
        let row = |n: usize| self.scales.iter().map(move |scales| scales[n]);
        let scales = (0..outputs).flat_map(row).collect();
        QuantLinear::new(outputs, inputs, self.group, codes, scales)
    }
}

impl Steps for Symmetric {
    fn find(&mut self, group: usize, weights: &[f32], energy: &[f64]) -> Result<()> {
        let scale = |row: &[f32]| {
            let scale = grid::scale(row, energy, self.rule);
            scale.ok_or_else(|| ExportError::NotFinite("a linear's weight".into()))
        };
        let scales = weights.chunks_exact(self.group).map(scale).collect::<Result<_>>()?;
        self.scales.resize(self.scales.len().max(group + 1), Vec::new());
        self.scales[group] = scales;
        Ok(())
    }

    fn round(&self, output: usize, input: usize, weight: f32) -> (u8, f32) {
        let scale = self.scales[input / self.group][output].to_f32();
        let code = grid::code(weight, scale);
        (code, grid::value(code, scale))
    }

    fn append(&mut self, others: Self) {
        self.scales.resize(self.scales.len().max(others.scales.len()), Vec::new());
        for (own, others) in self.scales.iter_mut().zip(others.scales) {
            own.extend(others);
        }
    }
}

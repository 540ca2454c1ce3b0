//! The rounding itself. Output rows know nothing of each other, so they are rounded some hundreds at a time:
//! that much of the weight is there in f64.
#![allow(clippy::indexing_slicing)] // Bounds: `rtn::check` ties the weight to whole rows of the factored inputs, of which `order` is a permutation; columns run below them.

use super::{Factored, Steps};
use crate::product::{Strided, multiply};
use crate::{Result, rtn};
use rayon::prelude::*;
use std::ops::Range;

/// Output rows that are rounded together.
const PANEL: usize = 512;

/// A rounded weight.
pub(crate) struct Rounded<S> {
    /// `[outputs, inputs]`, as the file orders them.
    pub codes: Vec<u8>,
    /// What they are codes of.
    pub steps: S,
    /// See [`Quantised`](super::Quantised).
    pub output_energy: f64,
}

/// Rounds a weight, f32 `[outputs, inputs]` row-major, to steps like those that `steps` begins with.
///
/// # Errors
/// Those of [`quantise`](super::quantise).
pub(crate) fn round<S: Steps + Send>(
    weight: &[f32],
    factored: &Factored,
    steps: impl Fn() -> S + Sync,
) -> Result<Rounded<S>> {
    let inputs = factored.inputs();
    rtn::check(weight, inputs, factored.group())?;
    let panels = weight.par_chunks(PANEL * inputs);
    let panels = panels.map(|rows| Rounding::new(rows, factored, steps()).run());
    let mut all =
        Rounded { codes: Vec::with_capacity(weight.len()), steps: steps(), output_energy: 0.0 };
    for panel in panels.collect::<Result<Vec<_>>>()? {
        all.codes.extend(panel.codes);
        all.steps.append(panel.steps);
        all.output_energy += panel.output_energy;
    }
    Ok(all)
}

/// A panel in the works.
struct Rounding<'a, S> {
    factored: &'a Factored,
    /// Rows of the panel.
    outputs: usize,
    /// `[inputs, outputs]` in rounding order, so that one input's weights lie together: weights, and of
    /// columns that are rounded what rounding took from them.
    columns: Vec<f64>,
    steps: S,
    /// `[outputs, inputs]`, in the file's order.
    codes: Vec<u8>,
    /// Σ(D·R)².
    damped_energy: f64,
}

impl<'a, S: Steps> Rounding<'a, S> {
    fn new(weight: &[f32], factored: &'a Factored, steps: S) -> Self {
        let (inputs, order) = (factored.inputs(), factored.order());
        let outputs = weight.len() / inputs;
        let mut columns = vec![0.0; weight.len()];
        for (column, input) in columns.chunks_exact_mut(outputs).zip(order) {
            let values = weight.iter().skip(*input).step_by(inputs);
            column.iter_mut().zip(values).for_each(|(to, value)| *to = f64::from(*value));
        }
        let codes = vec![0; weight.len()];
        Self { factored, outputs, columns, steps, codes, damped_energy: 0.0 }
    }

    fn run(mut self) -> Result<Rounded<S>> {
        let factored = self.factored;
        for (block, inverse) in factored.blocks().zip(factored.inverses()) {
            let mut mended = self.mended(block.clone(), inverse)?;
            self.round_block(block, inverse, &mut mended)?;
        }
        let damping: f64 = self
            .columns
            .chunks_exact(self.outputs)
            .zip(factored.added())
            .map(|(column, added)| added * column.iter().map(|d| d * d).sum::<f64>())
            .sum();
        let output_energy = self.damped_energy - damping;
        Ok(Rounded { codes: self.codes, steps: self.steps, output_energy })
    }

    /// The weights of a block as they best make up for what rounding took before it, `[block, outputs]`:
    /// W + c·R⁻¹, where c = D·R over the columns before, and R⁻¹ is of the block alone since R is
    /// triangular.
    fn mended(&self, block: Range<usize>, inverse: &[f64]) -> Result<Vec<f64>> {
        let (outputs, before, width) = (self.outputs, block.start, block.len());
        let mut mended = self.columns[before * outputs..block.end * outputs].to_vec();
        if before == 0 {
            return Ok(mended);
        }
        let mut owed = vec![0.0; width * outputs];
        let factor = Strided::rows(&self.factored.values()[before..], self.factored.inputs());
        let taken = Strided::rows(&self.columns[..before * outputs], outputs);
        let size = (width, outputs, before);
        multiply((&mut owed, outputs), size, (factor.transposed(), taken), (0.0, 1.0))?;
        let sides = (Strided::rows(inverse, width).transposed(), Strided::rows(&owed, outputs));
        multiply((&mut mended, outputs), (width, outputs, width), sides, (1.0, 1.0))?;
        Ok(mended)
    }

    /// Rounds the columns of a block, and mends those after them within it.
    fn round_block(
        &mut self,
        block: Range<usize>,
        inverse: &[f64],
        mended: &mut [f64],
    ) -> Result<()> {
        let (outputs, width) = (self.outputs, block.len());
        let mut errors = vec![0.0; outputs];
        for k in 0..width {
            if k.is_multiple_of(self.factored.group()) {
                self.find_steps(block.start + k, &mended[k * outputs..])?;
            }
            let (row, later) = mended[k * outputs..].split_at_mut(outputs);
            self.round_column(block.start + k, row, inverse[k * width + k], &mut errors);
            for (share, later) in inverse[k * width + k + 1..(k + 1) * width]
                .iter()
                .zip(later.chunks_exact_mut(outputs))
            {
                later.iter_mut().zip(&errors).for_each(|(w, e)| *w -= share * e);
            }
        }
        Ok(())
    }

    /// The steps of the group that begins at column `k`, from its weights as mended so far.
    fn find_steps(&mut self, k: usize, mended: &[f64]) -> Result<()> {
        let (group, outputs, order) = (self.factored.group(), self.outputs, self.factored.order());
        let first = order[k] / group * group;
        let mut weights = vec![0f32; group * outputs];
        for (input, column) in order[k..k + group].iter().zip(mended.chunks_exact(outputs)) {
            for (n, w) in column.iter().enumerate() {
                weights[n * group + input - first] = *w as f32;
            }
        }
        self.steps.find(first / group, &weights, &self.factored.energy()[first..first + group])
    }

    /// Rounds column `k`, which mended is `row`, and leaves the errors (D·R)ₖ.
    fn round_column(&mut self, k: usize, row: &[f64], pivot: f64, errors: &mut [f64]) {
        let (inputs, input) = (self.factored.inputs(), self.factored.order()[k]);
        let taken = &mut self.columns[k * self.outputs..(k + 1) * self.outputs];
        for (n, w) in row.iter().enumerate() {
            let (code, value) = self.steps.round(n, input, *w as f32);
            self.codes[n * inputs + input] = code;
            taken[n] -= f64::from(value);
            errors[n] = (w - f64::from(value)) / pivot;
            self.damped_energy += errors[n] * errors[n];
        }
    }
}

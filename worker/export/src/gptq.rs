//! GPTQ (Frantar et al. 2022, 2210.17323) on one linear: columns are rounded one after another, and
//! what each rounding breaks is mended in the columns not yet rounded, as far as the Hessian says
//! they can stand in.
//!
//! Differences from the reference: the factor of the inverse is taken without forming the inverse
//! (see [`crate::matrix`]); an input that never fires in the calibration keeps its rounded weight
//! instead of becoming zero, because a person's next prompt may use it; scales are rounded to f16,
//! as stored, before anything is rounded by them.
#![allow(clippy::indexing_slicing)] // Bounds: `rtn::check` ties the weight to `inputs` and `group`; columns run below `inputs`, of which `order` is a permutation.

mod steps;
mod symmetric;

pub(crate) use steps::Steps;

use crate::grid::ScaleRule;
use crate::hessian::Hessian;
use crate::matrix::{DenseMatrix, inverse_factor};
use crate::quantised::QuantLinear;
use crate::{ExportError, Result, rtn};
use std::ops::Range;
use symmetric::Symmetric;

/// Columns whose mending of the rest is delayed and done as one product. A multiple of every group
/// size below it.
const BLOCK: usize = 128;
/// Damping is raised tenfold as long as the Hessian is not positive definite, this often.
const DAMPING_TRIES: u32 = 6;

/// How to quantise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GptqConfig {
    /// Inputs that share a scale.
    pub group: usize,
    /// Added to the Hessian's diagonal, as a fraction of its mean.
    pub damping: f64,
    /// How a scale follows from its group.
    pub rule: ScaleRule,
    /// Round groups, and inputs within a group, in the order of falling input energy. Groups stay
    /// contiguous in the file, so the result is a plain desc_act=false one.
    pub act_order: bool,
}

impl GptqConfig {
    /// The shipped settings for a group size; ARCHITECTURE.md has the figures they were chosen by.
    pub fn new(group: usize) -> Self {
        Self { group, damping: 0.05, rule: ScaleRule::Search { signed: false }, act_order: true }
    }
}

/// A quantised linear and what it took.
#[derive(Debug, Clone)]
pub struct Quantised {
    /// The result.
    pub linear: QuantLinear,
    /// The damping that made the Hessian positive definite.
    pub damping: f64,
    /// Inputs that never fired.
    pub dead_inputs: usize,
}

/// Quantises a weight, f32 `[outputs, inputs]` row-major, to symmetric groups.
///
/// # Errors
/// [`ExportError::Shape`] where weight, Hessian and group do not fit, [`ExportError::NotFinite`]
/// for weights without a finite scale, [`ExportError::Indefinite`] where no damping helps.
pub fn quantise(weight: &[f32], hessian: &Hessian, config: &GptqConfig) -> Result<Quantised> {
    let steps = Symmetric::new(config.group, config.rule);
    let rounded = round(weight, hessian, (config.damping, config.act_order), steps)?;
    let Rounded { codes, steps, damping, dead_inputs } = rounded;
    Ok(Quantised { linear: steps.linear(hessian.inputs(), codes)?, damping, dead_inputs })
}

/// A rounded weight.
pub(crate) struct Rounded<S> {
    /// `[outputs, inputs]`, as the file orders them.
    pub codes: Vec<u8>,
    /// What they are codes of.
    pub steps: S,
    /// See [`Quantised`].
    pub damping: f64,
    dead_inputs: usize,
}

/// Rounds a weight, f32 `[outputs, inputs]` row-major, to the steps that `steps` finds, with that damping and
/// in the order of falling energy or the file's.
///
/// # Errors
/// Those of [`quantise`].
pub(crate) fn round<S: Steps>(
    weight: &[f32],
    hessian: &Hessian,
    (damping, act_order): (f64, bool),
    steps: S,
) -> Result<Rounded<S>> {
    let (inputs, group) = (hessian.inputs(), steps.group());
    rtn::check(weight, inputs, group)?;
    if !BLOCK.is_multiple_of(group) && !group.is_multiple_of(BLOCK) && group < inputs {
        return Err(ExportError::Unsupported(format!(
            "groups of {group} do not divide blocks of {BLOCK}"
        )));
    }
    let energy = hessian.matrix().diagonal();
    let order = if act_order { energy_order(&energy, group) } else { (0..inputs).collect() };
    let (factor, damping) = damped_factor(hessian.matrix(), &order, damping)?;
    let columns = DenseMatrix::from_fn(inputs, weight.len() / inputs, |k, n| {
        f64::from(weight[n * inputs + order[k]])
    });
    let dead_inputs = energy.iter().filter(|e| **e <= 0.0).count();
    let codes = vec![0; weight.len()];
    let rounding = Rounding { columns, factor, energy, order, steps, codes }.run()?;
    let Rounding { codes, steps, .. } = rounding;
    Ok(Rounded { codes, steps, damping, dead_inputs })
}

/// Groups by falling mean energy, inputs within a group by falling energy; ties by index.
fn energy_order(energy: &[f64], group: usize) -> Vec<usize> {
    let falling = |a: f64, b: f64| b.total_cmp(&a);
    let mut groups: Vec<usize> = (0..energy.len() / group).collect();
    let mass = |g: usize| energy[g * group..(g + 1) * group].iter().sum::<f64>();
    groups.sort_by(|a, b| falling(mass(*a), mass(*b)).then(a.cmp(b)));
    groups
        .iter()
        .flat_map(|g| {
            let mut inner: Vec<usize> = (g * group..(g + 1) * group).collect();
            inner.sort_by(|a, b| falling(energy[*a], energy[*b]).then(a.cmp(b)));
            inner
        })
        .collect()
}

/// The factor of the inverse of the ordered, damped Hessian, and the damping that it took.
fn damped_factor(h: &DenseMatrix, order: &[usize], damping: f64) -> Result<(DenseMatrix, f64)> {
    let diagonal = h.diagonal();
    let live: Vec<f64> = diagonal.iter().copied().filter(|d| *d > 0.0).collect();
    let mean = if live.is_empty() { 1.0 } else { live.iter().sum::<f64>() / live.len() as f64 };
    let mut fraction = damping;
    for _ in 0..DAMPING_TRIES {
        let damped = DenseMatrix::from_fn(order.len(), order.len(), |r, c| {
            let (r, c) = (order[r], order[c]);
            let floor = if diagonal[r] > 0.0 { fraction * mean } else { mean };
            if r == c { h.row(r)[c] + floor } else { h.row(r)[c] }
        });
        if let Some(factor) = inverse_factor(&damped)? {
            return Ok((factor, fraction));
        }
        fraction = (fraction * 10.0).max(1e-6);
    }
    Err(ExportError::Indefinite { width: order.len(), damping: fraction / 10.0 })
}

/// The work in progress. `columns` is `[inputs, outputs]` in rounding order: one input's weights
/// lie together.
struct Rounding<S> {
    columns: DenseMatrix,
    factor: DenseMatrix,
    /// Of each input, in the file's order.
    energy: Vec<f64>,
    /// Which input of the file is rounded when.
    order: Vec<usize>,
    steps: S,
    /// `[outputs, inputs]`, in the file's order.
    codes: Vec<u8>,
}

impl<S: Steps> Rounding<S> {
    fn run(mut self) -> Result<Self> {
        let inputs = self.columns.rows();
        // A wider group is one block whatever its width: its steps are found from mended weights.
        let block = BLOCK.max(self.steps.group());
        for start in (0..inputs).step_by(block) {
            let block = start..(start + block).min(inputs);
            let errors = self.round_block(block.clone())?;
            self.columns.propagate(&self.factor, block, &errors)?;
        }
        Ok(self)
    }

    /// Rounds the columns of a block, mends those after them within it, and returns the scaled
    /// errors `[block, outputs]`.
    fn round_block(&mut self, block: Range<usize>) -> Result<DenseMatrix> {
        let mut errors = DenseMatrix::zeros(block.len(), self.columns.cols());
        for k in block.clone() {
            if k.is_multiple_of(self.steps.group()) {
                self.find_steps(k)?;
            }
            let row = errors.row_mut(k - block.start);
            self.round_column(k, row);
            for later in k + 1..block.end {
                let share = self.factor.row(k)[later];
                self.columns
                    .row_mut(later)
                    .iter_mut()
                    .zip(row.iter())
                    .for_each(|(w, e)| *w -= share * e);
            }
        }
        Ok(errors)
    }

    /// The steps of the group that begins at column `k`, from its weights as mended so far.
    fn find_steps(&mut self, k: usize) -> Result<()> {
        let (group, outputs) = (self.steps.group(), self.columns.cols());
        let first = self.order[k] / group * group;
        let mut weights = vec![0f32; group * outputs];
        for k in k..k + group {
            let place = self.order[k] - first;
            for (n, w) in self.columns.row(k).iter().enumerate() {
                weights[n * group + place] = *w as f32;
            }
        }
        self.steps.find(first / group, &weights, &self.energy[first..first + group])
    }

    fn round_column(&mut self, k: usize, errors: &mut [f64]) {
        let (inputs, pivot, input) = (self.order.len(), self.factor.row(k)[k], self.order[k]);
        for (n, w) in self.columns.row(k).iter().enumerate() {
            let (code, value) = self.steps.round(n, input, *w as f32);
            self.codes[n * inputs + input] = code;
            errors[n] = (w - f64::from(value)) / pivot;
        }
    }
}

#[cfg(test)]
mod tests;

//! GPTQ (Frantar et al. 2022, 2210.17323) on one linear: columns are rounded one after another, and
//! what each rounding breaks is mended in the columns not yet rounded, as far as the Hessian says
//! they can stand in.
//!
//! It is Babai's nearest plane (Chen et al. 2025, 2507.18553), and made so here: the Hessian's factor is used
//! as it is (see [`Factored`]), never the inverse's. Other differences from the reference: an input that never
//! fires in the calibration keeps its rounded weight instead of becoming zero, because a person's next prompt
//! may use it; scales are rounded to f16, as stored, before anything is rounded by them.

mod factored;
mod rounding;
mod steps;
mod symmetric;

pub use factored::Factored;
pub(crate) use rounding::{Rounded, round};
pub(crate) use steps::Steps;

use crate::Result;
use crate::grid::ScaleRule;
use crate::quantised::QuantLinear;
use symmetric::Symmetric;

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

/// A quantised linear and how far it is off.
#[derive(Debug, Clone)]
pub struct Quantised {
    /// The result.
    pub linear: QuantLinear,
    /// tr(D·H·Dᵀ) of the difference D that rounding made: see
    /// [`Hessian::output_energy`](crate::hessian::Hessian::output_energy).
    pub output_energy: f64,
}

/// Quantises a weight, f32 `[outputs, inputs]` row-major, to symmetric groups of the size that the Hessian
/// was factored for.
///
/// # Errors
/// [`ExportError::Shape`](crate::ExportError::Shape) where weight and Hessian do not fit,
/// [`ExportError::NotFinite`](crate::ExportError::NotFinite) for weights without a finite scale.
pub fn quantise(weight: &[f32], factored: &Factored, rule: ScaleRule) -> Result<Quantised> {
    let rounded = round(weight, factored, || Symmetric::new(factored.group(), rule))?;
    let linear = rounded.steps.linear(factored.inputs(), rounded.codes)?;
    Ok(Quantised { linear, output_energy: rounded.output_energy })
}

#[cfg(test)]
mod tests;

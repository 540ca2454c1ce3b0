//! Round to nearest: the yardstick, on the same grid and by the same scale rule as GPTQ.

use crate::grid::{self, ScaleRule};
use crate::quantised::QuantLinear;
use crate::{ExportError, Result};

/// Quantises a weight, f32 `[outputs, inputs]` row-major, group by group. `energy` (the Hessian's
/// diagonal, or empty) weighs the errors of a scale search.
///
/// # Errors
/// [`ExportError::Shape`] where lengths do not fit, [`ExportError::NotFinite`] for weights without
/// a finite scale.
pub fn quantise(
    weight: &[f32],
    inputs: usize,
    group: usize,
    rule: ScaleRule,
    energy: &[f64],
) -> Result<QuantLinear> {
    check(weight, inputs, group)?;
    let mut codes = Vec::with_capacity(weight.len());
    let mut scales = Vec::with_capacity(weight.len() / group);
    for (i, part) in weight.chunks_exact(group).enumerate() {
        let at = (i * group) % inputs;
        let scale = grid::scale(part, energy.get(at..at + group).unwrap_or_default(), rule)
            .ok_or_else(|| ExportError::NotFinite("a linear's weight".into()))?;
        codes.extend(part.iter().map(|w| grid::code(*w, scale.to_f32())));
        scales.push(scale);
    }
    QuantLinear::new(weight.len() / inputs, inputs, group, codes, scales)
}

/// That the weight is whole rows of whole groups.
pub(crate) fn check(weight: &[f32], inputs: usize, group: usize) -> Result<()> {
    let fits = group > 0
        && inputs > 0
        && inputs.is_multiple_of(group)
        && weight.len().is_multiple_of(inputs);
    if fits {
        return Ok(());
    }
    let want = format!("rows of {inputs} in groups of {group}");
    Err(ExportError::Shape { name: "weight".into(), got: vec![weight.len()], want })
}

//! How a student is quantised, beside its format.

use crate::formats;
use crate::grid::ScaleRule;
use uspx_domain::ExportFormat;

/// How to quantise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExportSettings {
    /// How a group's scale follows from its weights, in every format of ours (K-quants have their
    /// own way).
    pub rule: ScaleRule,
    /// GPTQ's damping, a fraction of the Hessian's mean diagonal.
    pub damping: f64,
    /// GPTQ's rounding order by input energy.
    pub act_order: bool,
    /// Give GGUF's 4-bit blocks GPTQ's error feedback; otherwise they are rounded as llama.cpp's own
    /// tool does.
    pub fitted_blocks: bool,
    /// Passes of the quantisation-aware finish over the calibration; 0 leaves it out.
    pub finish: u32,
}

impl ExportSettings {
    /// What ships of a format.
    ///
    /// # Errors
    /// A format that has a row and no writer here.
    pub fn shipped(format: ExportFormat) -> crate::Result<Self> {
        Ok(formats::of(format)?.settings())
    }
}

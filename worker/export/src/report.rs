//! What an export says about itself.

use crate::compare::Verification;
use crate::finish::FinishReport;
use serde::{Deserialize, Serialize};
use uspx_domain::ExportFormat;

/// How one tensor fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorReport {
    /// Its checkpoint name.
    pub name: String,
    /// How it is stored: `int4 g128`, `Q4_0`, `F16` and so on.
    pub stored: String,
    /// Bytes it takes in the file.
    pub bytes: u64,
    /// Largest absolute difference between stored and original weight.
    pub max_error: f64,
    /// Linears: ‖X(Ŵ − W)ᵀ‖ / ‖XWᵀ‖ on the calibration's inputs, before the finish.
    pub output_error: Option<f64>,
    /// GPTQ: the damping that its Hessian took.
    pub damping: Option<f64>,
}

impl TensorReport {
    /// Nothing of it is stored yet.
    pub(crate) fn new(name: &str, stored: String) -> Self {
        let (name, max_error) = (name.to_owned(), 0.0);
        Self { name, stored, bytes: 0, max_error, output_error: None, damping: None }
    }
}

/// How an export went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExportReport {
    /// The format written.
    pub format: ExportFormat,
    /// Inputs that share a scale, one size for the whole model. GGUF's K-quants have groups of
    /// their own.
    pub group: usize,
    /// Calibration tokens.
    pub calibration_tokens: usize,
    /// The finish, where there was one.
    pub finish: Option<FinishReport>,
    /// Every tensor, in checkpoint order.
    pub tensors: Vec<TensorReport>,
    /// The reading back.
    pub verification: Verification,
    /// Conversations on which the written student, opened again, made the trained student's tokens.
    pub conversations: usize,
    /// Files written, relative to the folder, sorted.
    pub files: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// Where it went.
    pub timing: Timing,
}

/// Seconds of an export's parts; what is left of the whole is the finish and the conversations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Passes through the layers, reading them included.
    pub passes: f64,
    /// Sums of Hessians.
    pub hessians: f64,
    /// Factoring them.
    pub factoring: f64,
    /// Rounding linear maps, and writing them where nothing is to move them.
    pub rounding: f64,
    /// Writing everything else.
    pub writing: f64,
    /// Reading it back.
    pub reading: f64,
}

impl ExportReport {
    /// Mean over the linears of the squared relative output error.
    pub fn mean_output_error(&self) -> f64 {
        let errors: Vec<f64> = self.tensors.iter().filter_map(|t| t.output_error).collect();
        errors.iter().map(|e| e * e).sum::<f64>() / errors.len().max(1) as f64
    }
}

//! A linear map in 4 bits with its codes in the open: what a file will hold of it, and what a training
//! through the rounding may still move.

use crate::Result;
use candle_core::Tensor;

/// A linear map in 4 bits, `[outputs, inputs]`.
pub trait Coded {
    /// Its codes, `[outputs, inputs]`, from 0 to 15.
    fn codes(&self) -> &[u8];

    /// What they stand for.
    fn affine(&self) -> Affine;

    /// The weights that they stand for, f32 `[outputs, inputs]` on the CPU: what a reader will make of the
    /// file.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn values(&self) -> Result<Tensor>;

    /// The same with other codes, and its steps and offsets multiplied as far as the file can say so.
    ///
    /// # Errors
    /// Codes or factors that do not fit, or that the file cannot hold.
    fn moved(&self, moved: &Moved) -> Result<Box<dyn Coded>>;
}

/// What codes stand for: a weight is step · (code − zero) − offset.
pub struct Affine {
    /// The code of a weight of 0 where there is no offset.
    pub zero: u8,
    /// Inputs that share a step and an offset.
    pub part: usize,
    /// `[outputs, inputs / part]`.
    pub steps: Vec<f32>,
    /// `[outputs, inputs / part]`; none where the zero says it all.
    pub offsets: Option<Vec<f32>>,
    /// Inputs whose steps can be multiplied by a factor of their own, and their offsets by another.
    pub block: usize,
}

/// Where a training moved a linear map to.
pub struct Moved {
    /// `[outputs, inputs]`.
    pub codes: Vec<u8>,
    /// Factors of the steps, `[outputs, inputs / block]`.
    pub steps: Vec<f32>,
    /// Factors of the offsets, likewise; empty where it has none.
    pub offsets: Vec<f32>,
}

//! Matrices that lie on a GPU in fewer bits than floats have, and are expanded for a product.

use crate::{ModelError, Result, cuda};
use candle_core::{DType, Device, Tensor};
use uspx_kernel::{Nf4Matrix, Nf4Parts};

/// An MXFP4 matrix on a GPU.
#[derive(Debug, Clone)]
pub struct DeviceBlocks {
    /// Two codes a byte, `[out · in / 2]`.
    codes: Tensor,
    /// A scale for each 32 values, `[out · in / 32]`.
    scales: Tensor,
    dims: (usize, usize),
}

impl DeviceBlocks {
    /// From a checkpoint's bytes, `[out, in / 32, 16]` and `[out, in / 32]`.
    ///
    /// # Errors
    /// Sizes that do not fit; those of the tensor library.
    pub fn new(
        codes: Vec<u8>,
        scales: Vec<u8>,
        dims: (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        let values = dims.0 * dims.1;
        let codes = Tensor::from_vec(codes, values / 2, device)?;
        Ok(Self { codes, scales: Tensor::from_vec(scales, values / 32, device)?, dims })
    }

    /// (out, in).
    pub fn dims(&self) -> (usize, usize) {
        self.dims
    }

    /// All of it as floats, `[out, in]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn expand(&self, dtype: DType) -> Result<Tensor> {
        Ok(cuda::expand(&self.codes, &self.scales, self.dims, dtype)?)
    }
}

/// Values of an NF4 matrix that are floats at once, at most: 32 MiB of bf16.
const PANEL: usize = 1 << 24;

/// An NF4 matrix on a GPU, a panel of rows expanded at a time.
#[derive(Debug, Clone)]
pub struct DeviceNf4 {
    codes: Tensor,
    scales: Tensor,
    numbers: Tensor,
    dims: (usize, usize),
}

impl DeviceNf4 {
    /// The same matrix on a GPU.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn new(matrix: &Nf4Matrix, device: &Device) -> Result<Self> {
        let Nf4Parts { codes, scales, numbers } = matrix.parts();
        let there = |bytes: &[u8]| Tensor::from_slice(bytes, bytes.len(), device);
        Ok(Self {
            codes: there(codes)?,
            scales: there(scales)?,
            numbers: Tensor::from_slice(&numbers, numbers.len(), device)?,
            dims: (matrix.rows(), matrix.columns()),
        })
    }

    /// (out, in).
    pub fn dims(&self) -> (usize, usize) {
        self.dims
    }

    /// Rows as floats, `[rows, in]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn rows(&self, first: usize, rows: usize, dtype: DType) -> Result<Tensor> {
        let (out, into) = self.dims;
        if first + rows > out {
            let what = format!("rows {first} to {} of a matrix of {out}", first + rows);
            return Err(ModelError::Request(what));
        }
        let parts = [&self.codes, &self.scales, &self.numbers];
        Ok(cuda::expand_nf4(parts, first * into, (rows, into), dtype)?)
    }

    /// x·Wᵀ, `[n, in]` to `[n, out]`, not differentiable.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        let part = |(first, rows)| Ok(x.matmul(&self.rows(first, rows, x.dtype())?.t()?)?);
        let parts = self.panels().map(part).collect::<Result<Vec<_>>>()?;
        match parts.as_slice() {
            [only] => Ok(only.clone()),
            _ => Ok(Tensor::cat(&parts, 1)?),
        }
    }

    /// g·W, `[n, out]` to `[n, in]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn multiply_transposed(&self, g: &Tensor) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (first, rows) in self.panels() {
            let g = g.narrow(1, first, rows)?.contiguous()?;
            let part = g.matmul(&self.rows(first, rows, g.dtype())?)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        sum.ok_or_else(|| ModelError::Request("a matrix without rows".into()))
    }

    /// First row and rows of each panel.
    fn panels(&self) -> impl Iterator<Item = (usize, usize)> {
        let (out, into) = self.dims;
        let height = (PANEL / into.max(1)).clamp(1, out.max(1));
        (0..out).step_by(height).map(move |first| (first, height.min(out - first)))
    }
}

//! Weights of linear maps, as they are stored where something multiplies them so, else as floats.

use super::Checkpoint;
use super::check::{check_shape, dtype_name, not_finite};
use crate::layers::on_device::{DeviceBlocks, DeviceNf4};
use crate::layers::slices::with_values;
use crate::layers::weight::Weight;
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Dtype;
use std::ops::Range;
use uspx_kernel::{BlockMatrix, KernelError, Matrix, Nf4Matrix};

/// A tensor that holds the weights of all experts of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Stacked<'a> {
    /// Its name; MXFP4 appends `_blocks` and `_scales`.
    pub name: &'a str,
    /// Experts.
    pub experts: usize,
    /// Outputs of each.
    pub out: usize,
    /// Inputs of each.
    pub into: usize,
    /// How it is laid out.
    pub form: Form,
}

/// Layouts of stacked experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// MXFP4 blocks and scales of `[experts, out, in]`.
    Mxfp4,
    /// Floats `[experts, in, out]` (gpt-oss in bf16).
    InOut,
    /// Floats `[experts, out, in]`.
    OutIn,
}

impl Checkpoint {
    /// Rows `range` of a weight, `[out, in]`: as stored where this CPU has a kernel for it and
    /// `packed` asks for it, else as floats.
    ///
    /// # Errors
    /// As [`Self::float`].
    pub fn weight(
        &self,
        name: &str,
        shape: &[usize; 2],
        range: Range<usize>,
        packed: bool,
        (dtype, device): (DType, &Device),
    ) -> Result<Weight> {
        if let Some(matrix) = self.blocks.get(name).filter(|_| packed) {
            return Ok(Weight::Quantised(block_rows(name, matrix, shape, range)?));
        }
        let is_bf16 = self.place.get(name).is_some_and(|p| p.dtype == Dtype::BF16);
        if !(packed && is_bf16) {
            return Ok(Weight::Float(self.float_part(name, shape, range, dtype, device)?));
        }
        let [_, columns] = *shape;
        let (_, bytes) = self.part(name, shape, range.clone())?;
        Ok(Weight::Packed(finite(name, Matrix::bf16(range.len(), columns, bytes))?))
    }

    /// A weight, `[out, in]`, in NF4, whatever it is stored as: it alone is in memory as floats meanwhile.
    ///
    /// # Errors
    /// As [`Self::float`].
    pub fn nf4(&self, name: &str, (out, into): (usize, usize), device: &Device) -> Result<Weight> {
        let floats = self.float(name, &[out, into], DType::F32, &Device::Cpu)?;
        let matrix = with_values(&floats, |values| Nf4Matrix::quantise(out, into, values))?;
        let matrix = matrix.map_err(|e| ModelError::tensor(name, e.to_string()))?;
        if device.is_cpu() {
            return Ok(Weight::Nf4(matrix));
        }
        Ok(Weight::Nf4OnDevice(DeviceNf4::new(&matrix, device)?))
    }

    /// One expert's weight of a tensor `[experts, ..]` that holds all of them: see [`Stacked`].
    ///
    /// # Errors
    /// Missing, of another shape or type, or with a value that is not a finite number.
    pub fn expert(
        &self,
        stacked: &Stacked<'_>,
        index: usize,
        packed: bool,
        (dtype, device): (DType, &Device),
    ) -> Result<Weight> {
        let Stacked { name, experts, out, into, .. } = *stacked;
        if stacked.form == Form::Mxfp4 {
            let (blocks, scales) = self.mxfp4(stacked, index)?;
            let matrix = finite(name, Matrix::mxfp4(out, into, blocks, scales))?;
            if packed {
                return Ok(Weight::Packed(matrix));
            }
            return Ok(Weight::Float(
                Tensor::from_vec(matrix.expand(), (out, into), device)?.to_dtype(dtype)?,
            ));
        }
        let shape =
            if stacked.form == Form::InOut { [experts, into, out] } else { [experts, out, into] };
        let is_bf16 = self.place.get(name).is_some_and(|p| p.dtype == Dtype::BF16);
        if packed && is_bf16 {
            let (_, bytes) = self.part(name, &shape, index..index + 1)?;
            let bytes =
                if stacked.form == Form::InOut { transposed(&bytes, into, out) } else { bytes };
            return Ok(Weight::Packed(finite(name, Matrix::bf16(out, into, bytes))?));
        }
        let float = self.float_part(name, &shape, index..index + 1, dtype, device)?.squeeze(0)?;
        Ok(Weight::Float(if stacked.form == Form::InOut {
            float.t()?.contiguous()?
        } else {
            float
        }))
    }

    /// One expert's MXFP4 weight on a GPU, as it is stored.
    ///
    /// # Errors
    /// As [`Self::expert`].
    pub fn device_expert(
        &self,
        stacked: &Stacked<'_>,
        index: usize,
        device: &Device,
    ) -> Result<Weight> {
        let (blocks, scales) = self.mxfp4(stacked, index)?;
        // The scale's one code that is not a number; every code of a value is finite.
        if scales.contains(&0xff) {
            return Err(not_finite(stacked.name));
        }
        Ok(Weight::OnDevice(DeviceBlocks::new(
            blocks,
            scales,
            (stacked.out, stacked.into),
            device,
        )?))
    }

    /// Blocks and scales of one expert.
    fn mxfp4(&self, stacked: &Stacked<'_>, index: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let Stacked { name, experts, out, into, .. } = *stacked;
        let of =
            |suffix: &str, shape: &[usize]| self.raw(&format!("{name}_{suffix}"), shape, index);
        Ok((
            of("blocks", &[experts, out, into / 32, 16])?,
            of("scales", &[experts, out, into / 32])?,
        ))
    }

    fn raw(&self, name: &str, shape: &[usize], index: usize) -> Result<Vec<u8>> {
        let (dtype, bytes) = self.part(name, shape, index..index + 1)?;
        if dtype != Dtype::U8 {
            let reason = format!("is stored as {}, bytes were expected", dtype_name(dtype));
            return Err(ModelError::tensor(name, reason));
        }
        Ok(bytes)
    }
}

/// Some rows of a matrix in blocks, which must have shape `shape`.
pub(super) fn block_rows(
    name: &str,
    matrix: &BlockMatrix,
    shape: &[usize],
    range: Range<usize>,
) -> Result<BlockMatrix> {
    check_shape(name, &[matrix.rows(), matrix.columns()], shape)?;
    matrix.part(range).map_err(|e| ModelError::tensor(name, e.to_string()))
}

fn finite(name: &str, matrix: std::result::Result<Matrix, KernelError>) -> Result<Matrix> {
    let matrix = matrix.map_err(|e| ModelError::tensor(name, e.to_string()))?;
    if matrix.has_nan() { Err(not_finite(name)) } else { Ok(matrix) }
}

/// 16-bit values `[rows, columns]` as `[columns, rows]`.
fn transposed(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let (values, _) = bytes.as_chunks::<2>();
    let mut out = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            out.extend(values.get(row * columns + column).copied().unwrap_or_default());
        }
    }
    out
}

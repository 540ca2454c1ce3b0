//! Tensors read as floats.

use super::Checkpoint;
use super::check::{all_finite, check_shape, dtype_name, not_finite};
use super::weights::block_rows;
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Dtype;
use std::ops::Range;

impl Checkpoint {
    /// Reads a float tensor as `dtype`; its shape must be `shape`.
    ///
    /// # Errors
    /// Missing, of another shape, of a type that is not a float, or with a value that is not a
    /// finite number.
    pub fn float(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.float_part(name, shape, 0..shape.first().copied().unwrap_or(0), dtype, device)
    }

    /// Entries `range` of a float tensor's first dimension.
    ///
    /// # Errors
    /// As [`Self::float`].
    pub fn float_part(
        &self,
        name: &str,
        shape: &[usize],
        range: Range<usize>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        if let Some(tensor) = self.ready.get(name) {
            check_shape(name, tensor.dims(), shape)?;
            return Ok(tensor
                .narrow(0, range.start, range.len())?
                .contiguous()?
                .to_device(device)?
                .to_dtype(dtype)?);
        }
        if let Some(matrix) = self.blocks.get(name) {
            let part = block_rows(name, matrix, shape, range)?;
            let values = Tensor::from_vec(part.expand(), (part.rows(), part.columns()), device)?;
            return Ok(values.to_dtype(dtype)?);
        }
        let (stored, bytes) = self.float_bytes(name, shape, range.clone())?;
        if !all_finite(&bytes, stored) {
            return Err(not_finite(name));
        }
        let dims: Vec<usize> =
            std::iter::once(range.len()).chain(shape.iter().skip(1).copied()).collect();
        let tensor = Tensor::from_raw_buffer(&bytes, stored, &dims, device)?;
        Ok(tensor.to_dtype(dtype)?)
    }

    /// The bytes of entries `range` of a float tensor's first dimension, and their type.
    fn float_bytes(
        &self,
        name: &str,
        shape: &[usize],
        range: Range<usize>,
    ) -> Result<(DType, Vec<u8>)> {
        let (stored, bytes) = self.part(name, shape, range)?;
        let stored = match stored {
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            Dtype::F32 => DType::F32,
            other => {
                let reason = format!("is stored as {}, a float was expected", dtype_name(other));
                return Err(ModelError::tensor(name, reason));
            }
        };
        Ok((stored, bytes))
    }

    /// A router's bias, `[experts]`, as f32. Here alone -∞ means something: the expert is dead,
    /// never to be chosen. So are layers padded that keep fewer experts than others.
    ///
    /// # Errors
    /// As [`Self::float`], for any other value that is not a finite number.
    pub fn router_bias(&self, name: &str, experts: usize) -> Result<Vec<f32>> {
        let values = match self.ready.get(name) {
            Some(_) => self.float(name, &[experts], DType::F32, &Device::Cpu)?,
            None => {
                let (stored, bytes) = self.float_bytes(name, &[experts], 0..experts)?;
                Tensor::from_raw_buffer(&bytes, stored, &[experts], &Device::Cpu)?
                    .to_dtype(DType::F32)?
            }
        };
        let values = values.to_vec1::<f32>()?;
        let means_something = |v: &f32| v.is_finite() || *v == f32::NEG_INFINITY;
        if values.iter().all(means_something) { Ok(values) } else { Err(not_finite(name)) }
    }

    /// Whether two float tensors of shape `shape` hold the same values.
    ///
    /// # Errors
    /// As [`Self::float`].
    pub fn same(&self, name: &str, other: &str, shape: &[usize; 2]) -> Result<bool> {
        /// Rows compared together, so that no whole vocabulary is in memory.
        const ROWS: usize = 4096;
        let [rows, _] = *shape;
        for start in (0..rows).step_by(ROWS) {
            let part = |name: &str| -> Result<Vec<f32>> {
                let rows = start..(start + ROWS).min(rows);
                Ok(self
                    .float_part(name, shape, rows, DType::F32, &Device::Cpu)?
                    .flatten_all()?
                    .to_vec1()?)
            };
            if part(name)? != part(other)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a float tensor holds nothing but zeros; another one does not.
    pub fn is_zero(&self, name: &str) -> bool {
        let shape = self.place.get(name).map(|p| p.shape.clone());
        let Some(shape) = shape.or_else(|| self.ready.get(name).map(|t| t.dims().to_vec())) else {
            return false;
        };
        let values = self.float(name, &shape, DType::F32, &Device::Cpu);
        let values = values.and_then(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?));
        values.is_ok_and(|values| values.iter().all(|v| *v == 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_shape_that_differs_from_the_configuration_is_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let error = checkpoint
            .float("model.norm.weight", &[64], DType::F32, &Device::Cpu)
            .unwrap_err()
            .to_string();
        assert!(error.contains("[128]") && error.contains("[64]"), "{error}");
    }
}

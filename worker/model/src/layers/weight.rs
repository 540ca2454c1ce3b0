//! A frozen weight, held as floats or as its checkpoint stores it, and the one product that uses it.

use crate::layers::slices::{is_plain, with_values};
use crate::link::link;
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use uspx_kernel::Matrix;

/// A linear map's weight, `[out, in]`.
#[derive(Debug, Clone)]
pub enum Weight {
    /// A tensor of floats, on any device.
    Float(Tensor),
    /// bf16 or MXFP4 in main memory, multiplied by the kernels of this CPU without being expanded whole.
    Packed(Matrix),
}

impl Weight {
    /// (out, in).
    ///
    /// # Errors
    /// A float tensor that is no matrix.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match self {
            Self::Float(weight) => Ok(weight.dims2()?),
            Self::Packed(matrix) => Ok((matrix.rows(), matrix.columns())),
        }
    }

    /// As floats, `[out, in]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn float(&self) -> Result<Tensor> {
        match self {
            Self::Float(weight) => Ok(weight.clone()),
            Self::Packed(matrix) => {
                Ok(Tensor::from_vec(matrix.expand(), (matrix.rows(), matrix.columns()), &Device::Cpu)?)
            }
        }
    }

    /// x·Wᵀ + bias, `[n, in]` to `[n, out]`. The gradient reaches x but costs nothing for W and the bias.
    ///
    /// # Errors
    /// Those of the tensor library and of the kernels.
    pub fn forward(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let y = match self {
            Self::Packed(matrix) if x.dtype() == DType::F32 => packed(matrix, x, bias)?,
            Self::Packed(matrix) => {
                let weight = Tensor::from_vec(matrix.expand(), (matrix.rows(), matrix.columns()), x.device())?;
                add(x.detach().matmul(&weight.to_dtype(x.dtype())?.t()?)?, bias)?
            }
            Self::Float(weight) => add(x.detach().matmul(&weight.t()?)?, bias)?,
        };
        if !x.track_op() {
            return Ok(y);
        }
        let weight = self.clone();
        Ok(link("frozen-matmul", x, y, move |_, _, grad| weight.pull_back(grad).map_err(candle_core::Error::wrap))?)
    }

    /// g·W, `[n, out]` to `[n, in]`: the gradient with respect to x.
    pub(crate) fn pull_back(&self, grad: &Tensor) -> Result<Tensor> {
        let grad = grad.contiguous()?.detach();
        match self {
            Self::Packed(matrix) if is_plain(&grad) => {
                let n = grad.dim(0)?;
                let mut out = vec![0.0; n * matrix.columns()];
                with_values(&grad, |g| matrix.multiply_transposed(g, n, &mut out))?.map_err(kernel)?;
                Ok(Tensor::from_vec(out, (n, matrix.columns()), grad.device())?)
            }
            _ => Ok(grad.matmul(&self.float()?.to_dtype(grad.dtype())?)?),
        }
    }
}

fn kernel(error: uspx_kernel::KernelError) -> ModelError {
    ModelError::Request(error.to_string())
}

fn packed(matrix: &Matrix, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n, rows) = (x.dim(0)?, matrix.rows());
    let mut y = vec![0.0; n * rows];
    with_values(&x.detach(), |x| matrix.multiply(x, n, &mut y))?.map_err(kernel)?;
    if let Some(bias) = bias {
        with_values(bias, |bias| {
            for row in y.chunks_exact_mut(rows) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
        })?;
    }
    Ok(Tensor::from_vec(y, (n, rows), x.device())?)
}

fn add(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => Ok(y.broadcast_add(bias)?),
        None => Ok(y),
    }
}

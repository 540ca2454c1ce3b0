//! A weight, held as floats or as its checkpoint stores it, and the one product that uses it. It is frozen,
//! but for floats that were computed from what is learned.

use crate::custom_gradient::with_gradient;
use crate::layers::on_device::{DeviceBlocks, DeviceNf4};
use crate::layers::slices::{is_plain, with_values};
use crate::{ModelError, Result, cuda};
use candle_core::{DType, Device, Tensor};
use uspx_kernel::{BlockMatrix, KernelError, Matrix, Nf4Matrix};

/// A linear map's weight, `[out, in]`.
#[derive(Debug, Clone)]
pub enum Weight {
    /// A tensor of floats, on any device.
    Float(Tensor),
    /// bf16 or MXFP4 in main memory, multiplied by the kernels of this CPU without being expanded
    /// whole.
    Packed(Matrix),
    /// A GGUF file's blocks in main memory, likewise.
    Quantised(BlockMatrix),
    /// NF4 in main memory, likewise: what an adapter is trained on where floats would not fit.
    Nf4(Nf4Matrix),
    /// MXFP4 on a GPU, expanded for one product at a time.
    OnDevice(DeviceBlocks),
    /// NF4 on a GPU, expanded panel by panel.
    Nf4OnDevice(DeviceNf4),
}

impl Weight {
    /// (out, in).
    ///
    /// # Errors
    /// A float tensor that is not a matrix.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match self {
            Self::Float(weight) => Ok(weight.dims2()?),
            Self::Packed(matrix) => Ok((matrix.rows(), matrix.columns())),
            Self::Quantised(matrix) => Ok((matrix.rows(), matrix.columns())),
            Self::Nf4(matrix) => Ok((matrix.rows(), matrix.columns())),
            Self::OnDevice(blocks) => Ok(blocks.dims()),
            Self::Nf4OnDevice(matrix) => Ok(matrix.dims()),
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
                Ok(Tensor::from_vec(matrix.expand(), self.dims()?, &Device::Cpu)?)
            }
            Self::Quantised(matrix) => {
                Ok(Tensor::from_vec(matrix.expand(), self.dims()?, &Device::Cpu)?)
            }
            Self::Nf4(matrix) => Ok(Tensor::from_vec(matrix.expand(), self.dims()?, &Device::Cpu)?),
            Self::OnDevice(_) | Self::Nf4OnDevice(_) => self.float_as(DType::F32),
        }
    }

    /// As floats of `dtype`, `[out, in]`.
    fn float_as(&self, dtype: DType) -> Result<Tensor> {
        match self {
            Self::OnDevice(blocks) => blocks.expand(dtype),
            Self::Nf4OnDevice(matrix) => matrix.rows(0, matrix.dims().0, dtype),
            _ => Ok(self.float()?.to_dtype(dtype)?),
        }
    }

    /// x·Wᵀ + bias, `[n, in]` to `[n, out]`. The gradient reaches x but costs nothing for W and the
    /// bias, unless W is floats with a history of its own: then it learns.
    ///
    /// # Errors
    /// Those of the tensor library and of the kernels.
    pub fn forward(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        if let Self::Float(weight) = self
            && weight.track_op()
        {
            let y = x.matmul(&weight.t()?)?;
            return Ok(bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))?);
        }
        let (plain, (out, _)) = (x.dtype() == DType::F32 && x.device().is_cpu(), self.dims()?);
        let y = match self {
            Self::Packed(matrix) if plain => {
                kernel(x, out, bias, |x, n, y| matrix.multiply(x, n, y))?
            }
            Self::Quantised(matrix) if plain => {
                kernel(x, out, bias, |x, n, y| matrix.multiply(x, n, y))?
            }
            Self::Nf4(matrix) if plain => kernel(x, out, bias, |x, n, y| matrix.multiply(x, n, y))?,
            Self::Nf4OnDevice(matrix) => add(matrix.multiply(&x.detach())?, bias)?,
            _ => {
                let weight = self.float_as(x.dtype())?.to_device(x.device())?;
                add(x.detach().matmul(&weight.t()?)?, bias)?
            }
        };
        if !x.track_op() {
            return Ok(y);
        }
        let weight = self.clone();
        Ok(with_gradient("frozen-matmul", x, y, move |_, _, grad| {
            weight.pull_back(grad).map_err(ModelError::within_candle)
        })?)
    }

    /// g·W, `[n, out]` to `[n, in]`: the gradient with respect to x.
    pub(crate) fn pull_back(&self, grad: &Tensor) -> Result<Tensor> {
        let grad = grad.contiguous()?.detach();
        let into = self.dims()?.1;
        match self {
            Self::Packed(matrix) if is_plain(&grad) => {
                kernel(&grad, into, None, |g, n, out| matrix.multiply_transposed(g, n, out))
            }
            Self::Quantised(matrix) if is_plain(&grad) => {
                kernel(&grad, into, None, |g, n, out| matrix.multiply_transposed(g, n, out))
            }
            Self::Nf4(matrix) if is_plain(&grad) => {
                kernel(&grad, into, None, |g, n, out| matrix.multiply_transposed(g, n, out))
            }
            Self::Nf4OnDevice(matrix) => matrix.multiply_transposed(&grad),
            _ => Ok(grad.matmul(&self.float_as(grad.dtype())?.to_device(grad.device())?)?),
        }
    }
}

/// What `product`(x, rows, out) makes of the rows of `x`, each `width` values, plus the bias.
fn kernel(
    x: &Tensor,
    width: usize,
    bias: Option<&Tensor>,
    product: impl FnOnce(&[f32], usize, &mut [f32]) -> std::result::Result<(), KernelError>,
) -> Result<Tensor> {
    let n = x.dim(0)?;
    let mut y = vec![0.0; n * width];
    with_values(&x.detach(), |x| product(x, n, &mut y))?
        .map_err(|e| ModelError::Request(e.to_string()))?;
    if let Some(bias) = bias {
        with_values(bias, |bias| {
            for row in y.chunks_exact_mut(width) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
        })?;
    }
    Ok(Tensor::from_vec(y, (n, width), x.device())?)
}

fn add(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) if cuda::serves(&y) => Ok(cuda::add_bias(&y, bias)?),
        Some(bias) => Ok(y.broadcast_add(bias)?),
        None => Ok(y),
    }
}

//! RMS normalisation (Zhang & Sennrich 2019) with a frozen gain.

use crate::Result;
use crate::custom_gradient::with_gradient;
use crate::taps::Backward;
use candle_core::{D, DType, Tensor};

/// y = x / sqrt(mean(x²) + ε) · gain.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    gain: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// From its gain, `[hidden]`.
    pub fn new(gain: Tensor, eps: f64) -> Self {
        Self { gain, eps }
    }

    /// The gain, `[hidden]`.
    pub fn gain(&self) -> &Tensor {
        &self.gain
    }

    /// Normalises the rows of x, `[N, hidden]`; under relevance the denominator counts as given.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn forward(&self, x: &Tensor, back: Backward) -> Result<Tensor> {
        let (plain, eps) = (x.detach().contiguous()?, self.eps as f32);
        // The fused one has no f64, in which gradients are checked.
        let y = match x.dtype() {
            DType::F64 => candle_nn::ops::rms_norm_slow(&plain, &self.gain, eps)?,
            _ => candle_nn::ops::rms_norm(&plain, &self.gain, eps)?,
        };
        let (gain, eps) = (self.gain.clone(), self.eps);
        Ok(with_gradient("rms-norm", x, y, move |x, _, grad| {
            let dtype = x.dtype();
            // Sums of 16-bit floats would lose most of their bits.
            let sums = |t: &Tensor| {
                if dtype == DType::BF16 { t.to_dtype(DType::F32) } else { Ok(t.clone()) }
            };
            let (x, grad, gain) = (sums(x)?, sums(grad)?, sums(&gain)?);
            let inverse = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
            let scaled = grad.broadcast_mul(&gain)?;
            if back == Backward::Relevance {
                return scaled.broadcast_mul(&inverse)?.to_dtype(dtype);
            }
            let unit = x.broadcast_mul(&inverse)?;
            let along = (&scaled * &unit)?.mean_keepdim(D::Minus1)?;
            (scaled - unit.broadcast_mul(&along)?)?.broadcast_mul(&inverse)?.to_dtype(dtype)
        })?)
    }
}

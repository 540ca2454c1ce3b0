//! Rotary position embedding (Su et al. 2021), half-split, with YaRN and Llama-3.1 stretching.

use crate::Result;
use crate::config::{Rope, RopeScaling};
use crate::custom_gradient::with_gradient;
use candle_core::{DType, Device, Tensor};
use std::f64::consts::PI;

/// The inverse frequencies of a model, and the factor on cosines and sines.
#[derive(Debug, Clone)]
pub struct Rotary {
    inverse: Vec<f64>,
    factor: f64,
}

/// Cosines and sines of a batch's positions, each `[N, head_dim / 2]`.
#[derive(Debug, Clone)]
pub struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// For heads of `dim`.
    pub fn new(rope: &Rope, dim: usize) -> Self {
        let plain: Vec<f64> =
            (0..dim / 2).map(|i| rope.theta.powf(-2.0 * i as f64 / dim as f64)).collect();
        match rope.scaling {
            RopeScaling::None => Self { inverse: plain, factor: 1.0 },
            RopeScaling::Yarn {
                factor,
                original,
                beta_fast,
                beta_slow,
                truncate,
                attention_factor,
            } => {
                let bounds = yarn_bounds(rope.theta, dim, original, beta_fast, beta_slow, truncate);
                let inverse = plain
                    .iter()
                    .enumerate()
                    .map(|(i, f)| yarn(*f, i as f64, bounds, factor))
                    .collect();
                Self { inverse, factor: attention_factor }
            }
            RopeScaling::Llama3 { factor, original, low, high } => {
                let inverse =
                    plain.iter().map(|f| llama3(*f, factor, original, low, high)).collect();
                Self { inverse, factor: 1.0 }
            }
        }
    }

    /// The inverse frequencies, one for each pair of values.
    pub fn frequencies(&self) -> &[f64] {
        &self.inverse
    }

    /// The factor on cosines and sines.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// The angles of `positions`. Computed in f64, as exact as the dtype allows.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn angles(&self, positions: &[u32], dtype: DType, device: &Device) -> Result<Angles> {
        let table = |f: fn(f64) -> f64| -> Result<Tensor> {
            let each = |p: &u32| {
                let p = f64::from(*p);
                self.inverse
                    .iter()
                    .map(move |w| (f(p * w) * self.factor) as f32)
                    .collect::<Vec<_>>()
            };
            let values: Vec<f32> = positions.iter().flat_map(each).collect();
            Ok(Tensor::from_vec(values, (positions.len(), self.inverse.len()), device)?
                .to_dtype(dtype)?)
        };
        Ok(Angles { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }
}

/// Dimensions between which YaRN blends: below the first frequencies are kept, above the second
/// interpolated.
fn yarn_bounds(
    theta: f64,
    dim: usize,
    original: f64,
    fast: f64,
    slow: f64,
    truncate: bool,
) -> (f64, f64) {
    let dim = dim as f64;
    let at = |rotations: f64| dim * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (at(fast), at(slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    (low, high)
}

fn yarn(frequency: f64, i: f64, (low, high): (f64, f64), factor: f64) -> f64 {
    let interpolate = ((i - low) / (high - low)).clamp(0.0, 1.0);
    frequency / factor * interpolate + frequency * (1.0 - interpolate)
}

fn llama3(frequency: f64, factor: f64, original: f64, low: f64, high: f64) -> f64 {
    let wavelength = 2.0 * PI / frequency;
    if wavelength < original / high {
        return frequency;
    }
    if wavelength > original / low {
        return frequency / factor;
    }
    let smooth = (original / wavelength - low) / (high - low);
    (1.0 - smooth) * frequency / factor + smooth * frequency
}

impl Angles {
    /// Those of some of the rows.
    pub(crate) fn rows(&self, ids: &Tensor) -> Result<Self> {
        Ok(Self { cos: self.cos.index_select(ids, 0)?, sin: self.sin.index_select(ids, 0)? })
    }

    /// Rotates `x`, `[N, heads, head_dim]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let y = rope(&x.detach(), &self.cos, &self.sin)?;
        let (cos, back) = (self.cos.clone(), self.sin.neg()?);
        Ok(with_gradient("rope", x, y, move |_, _, grad| rope(grad, &cos, &back))?)
    }
}

fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> candle_core::Result<Tensor> {
    candle_nn::rotary_emb::rope_thd(&x.unsqueeze(0)?.contiguous()?, cos, sin)?.squeeze(0)
}

//! An SAE as it is used.

use crate::codes::Codes;
use crate::number::{Number, dot};
use crate::parameters::Parameters;
use crate::select::Select;
use candle_core::{Device, Tensor};
use uspx_model::dictionary::values;

/// Added to a row's deviation before dividing by it, as SAELens does.
const EPSILON: f64 = 1e-5;

/// What is done to a row before it is encoded, and undone after it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalisation {
    /// Nothing.
    None,
    /// Scaled to the norm √width (SAELens: `constant_norm_rescale`).
    ConstantNorm,
    /// Mean 0 and deviation 1, as `layer_norm` does in SAELens.
    LayerNorm,
}

/// A trained SAE.
#[derive(Debug, Clone, PartialEq)]
pub struct Sae<T> {
    /// Its weights.
    pub parameters: Parameters<T>,
    /// How features are chosen; not [`Select::BatchTopK`].
    pub select: Select<T>,
    /// What rows go through.
    pub normalisation: Normalisation,
}

/// A row's part in its normalisation: what was taken from it, and what it is then multiplied by to
/// undo it.
pub(crate) type Undo<T> = (T, T);

impl<T: Number> Sae<T> {
    /// The features of rows `[n, width]`, and what they make of them, `[n, width]`.
    pub fn through(&self, rows: &[T]) -> (Codes<T>, Vec<T>) {
        let (codes, undo) = self.encode(rows);
        let mut made = self.parameters.decode(&codes);
        for (row, (shift, scale)) in made.chunks_exact_mut(self.parameters.width.max(1)).zip(undo) {
            row.iter_mut().for_each(|x| *x = *x * scale + shift);
        }
        (codes, made)
    }

    /// The features of rows `[n, width]`, and what undoes each row's normalisation.
    pub(crate) fn encode(&self, rows: &[T]) -> (Codes<T>, Vec<Undo<T>>) {
        let mut own = rows.to_vec();
        let undo: Vec<Undo<T>> = own
            .chunks_exact_mut(self.parameters.width.max(1))
            .map(|row| self.normalisation.apply(row))
            .collect();
        let pre = self.parameters.pre_activations(&self.parameters.centred(&own));
        (self.select.codes(&pre, self.parameters.features()), undo)
    }
}

impl Sae<f32> {
    /// What the SAE makes of activations `[n, width]` on any device, in their dtype, and the codes.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn graft(&self, activations: &Tensor) -> uspx_model::Result<(Codes<f32>, Tensor)> {
        let (codes, made) = self.through(&values(activations)?);
        let tensor = Tensor::from_vec(made, activations.shape(), &Device::Cpu)?;
        Ok((codes, tensor.to_dtype(activations.dtype())?.to_device(activations.device())?))
    }
}

impl Normalisation {
    fn apply<T: Number>(self, row: &mut [T]) -> Undo<T> {
        let count = T::of(row.len() as f64);
        match self {
            Self::None => (T::zero(), T::one()),
            Self::ConstantNorm => {
                let scale = dot(row, row).sqrt() / count.sqrt();
                row.iter_mut().for_each(|x| *x /= scale);
                (T::zero(), scale)
            }
            Self::LayerNorm => {
                let mean = row.iter().copied().sum::<T>() / count;
                row.iter_mut().for_each(|x| *x -= mean);
                let deviation = (dot(row, row) / (count - T::one())).sqrt();
                row.iter_mut().for_each(|x| *x /= deviation + T::of(EPSILON));
                (mean, deviation)
            }
        }
    }

    /// How what it does to a row changes with the row.
    pub(crate) fn slopes<T: Number>(self, row: &[T]) -> Slopes<T> {
        let (zero, one, count) = (T::zero(), T::one(), T::of(row.len() as f64));
        let mut own = row.to_vec();
        let (centre, scale) = self.apply(&mut own);
        let (gain, gain_by_scale, by_row) = match self {
            Self::None => (one, zero, zero),
            Self::ConstantNorm => (one, zero, (scale * count).recip()),
            Self::LayerNorm => {
                let least = scale + T::of(EPSILON);
                let slope = T::of(EPSILON) / (least * least);
                (scale / least, slope, (scale * (count - one)).recip())
            }
        };
        Slopes { centre, gain, gain_by_scale, scale: by_row }
    }
}

/// A feature's strength is gain · w·(x − centre) + scale · constant; this is how that moves with x.
pub(crate) struct Slopes<T> {
    /// What is taken from the row.
    pub centre: T,
    /// What becomes of a step along the encoder.
    pub gain: T,
    /// The gain's derivative by the scale.
    pub gain_by_scale: T,
    /// The scale's derivative by the row, as a factor of x − centre.
    pub scale: T,
}

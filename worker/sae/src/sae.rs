//! An SAE as it is used.

use crate::codes::Codes;
use crate::number::{Number, dot};
use crate::parameters::Parameters;
use crate::select::Select;
use candle_core::{DType, Device, Tensor};

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
type Undo<T> = (T, T);

impl<T: Number> Sae<T> {
    /// The features of rows `[n, width]`, and what they make of them, `[n, width]`.
    pub fn through(&self, rows: &[T]) -> (Codes<T>, Vec<T>) {
        let mut own = rows.to_vec();
        let undo: Vec<Undo<T>> = own
            .chunks_exact_mut(self.parameters.width.max(1))
            .map(|row| self.normalisation.apply(row))
            .collect();
        let pre = self.parameters.pre_activations(&self.parameters.centred(&own));
        let codes = self.select.codes(&pre, self.parameters.features());
        let mut made = self.parameters.decode(&codes);
        for (row, (shift, scale)) in made.chunks_exact_mut(self.parameters.width.max(1)).zip(undo) {
            row.iter_mut().for_each(|x| *x = *x * scale + shift);
        }
        (codes, made)
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

/// The values of a tensor, row-major, as f32 in main memory.
pub(crate) fn values(tensor: &Tensor) -> uspx_model::Result<Vec<f32>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
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
}

//! A linear map whose codes are learned: a place on the grid for each weight, of which the file has the
//! nearest code, and factors on the steps.

use crate::coded::{Affine, Coded, Moved};
use crate::formats::Writer;
use crate::grid::MAX_CODE;
use crate::{Result, weights};
use candle_core::{DType, Device, Tensor, Var};
use uspx_model::custom_gradients::with_gradients;
use uspx_model::taps::Projection;
use uspx_model::transformer::Transformer;

/// How far from its code's middle a weight may begin: it is still rounded to it.
const WITHIN: f32 = 0.49;

/// A linear map on its way.
pub(super) struct Latent<'a> {
    /// Its layer.
    pub layer: usize,
    /// Which map.
    pub projection: Projection,
    /// Places on the grid, f32 `[outputs, inputs]`.
    pub places: Var,
    /// Factors of the steps, f32 `[outputs, blocks]`.
    pub steps: Var,
    /// Factors of the offsets, likewise, where it has any.
    pub offsets: Option<Var>,
    grid: Grid,
    began: &'a dyn Coded,
}

impl<'a> Latent<'a> {
    /// Every linear map of which `writer` holds codes. `floats` are its weights before they were rounded.
    pub fn all(floats: &Transformer, writer: &'a dyn Writer) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for layer in 0..floats.layers() {
            for projection in Projection::DENSE {
                if let Some(coded) = writer.coded(&projection.path(layer)) {
                    let weight = floats.linear(layer, projection)?.weight()?;
                    all.push(Self::new((layer, projection), coded, &weight)?);
                }
            }
        }
        Ok(all)
    }

    pub fn new(
        (layer, projection): (usize, Projection),
        began: &'a dyn Coded,
        weight: &Tensor,
    ) -> Result<Self> {
        let (device, (outputs, inputs)) = (weight.device(), weight.dims2()?);
        let affine = began.affine();
        let blocks = inputs / affine.block;
        let places =
            places(&weights::plain(weight)?.flatten_all()?.to_vec1()?, &affine, began.codes());
        let grid = Grid::new(affine, (outputs, inputs), device)?;
        let factors = || Var::ones((outputs, blocks), DType::F32, device);
        let offsets = grid.offsets.is_some().then(factors).transpose()?;
        let places = Var::from_vec(places, (outputs, inputs), device)?;
        Ok(Self { layer, projection, places, steps: factors()?, offsets, grid, began })
    }

    /// The weight as it is now, f32 `[outputs, inputs]`: what it learns by reaches places and factors.
    pub fn weight(&self) -> Result<Tensor> {
        self.grid.weight(&self.places, &self.steps, self.offsets.as_deref())
    }

    /// Where it is now, as a file can say it.
    pub fn moved(&self) -> Result<Moved> {
        let flat = |var: &Tensor| -> Result<Vec<f32>> {
            Ok(weights::plain(var)?.flatten_all()?.to_vec1()?)
        };
        let code = |place: f32| place.round().clamp(0.0, f32::from(MAX_CODE)) as u8;
        let codes = flat(&self.places)?.into_iter().map(code).collect();
        let offsets = self.offsets.as_deref().map(flat).transpose()?;
        Ok(Moved { codes, steps: flat(&self.steps)?, offsets: offsets.unwrap_or_default() })
    }

    /// What the file would hold of it now.
    pub fn stored(&self) -> Result<Tensor> {
        self.began.moved(&self.moved()?)?.values()
    }

    /// Codes of `moved` that are others than it began with, and all of them.
    pub fn recoded(&self, moved: &Moved) -> (usize, usize) {
        let others = self.began.codes().iter().zip(&moved.codes).filter(|(a, b)| a != b);
        (others.count(), moved.codes.len())
    }
}

/// Where the weights lie on the grid, as near as possible to themselves but nearest to their codes.
fn places(weights: &[f32], affine: &Affine, codes: &[u8]) -> Vec<f32> {
    let offsets = affine.offsets.as_deref().unwrap_or_default();
    let parts = weights.chunks(affine.part).zip(codes.chunks(affine.part)).enumerate();
    let mut places = Vec::with_capacity(weights.len());
    for (at, (weights, codes)) in parts {
        let step = affine.steps.get(at).copied().unwrap_or(0.0);
        let offset = offsets.get(at).copied().unwrap_or(0.0);
        for (weight, code) in weights.iter().zip(codes) {
            let code = f32::from(*code);
            let place = (weight + offset) / step + f32::from(affine.zero);
            // A part whose weights are all alike has no step.
            let near = place.clamp(code - WITHIN, code + WITHIN);
            places.push(if place.is_finite() { near } else { code });
        }
    }
    places
}

/// What places stand for.
#[derive(Clone)]
struct Grid {
    zero: f64,
    /// `[outputs, parts, 1]`.
    steps: Tensor,
    /// `[outputs, parts, 1]`.
    offsets: Option<Tensor>,
    /// (outputs, parts, inputs of a part), and likewise in blocks.
    parts: (usize, usize, usize),
    blocks: (usize, usize, usize),
    dims: (usize, usize),
}

impl Grid {
    fn new(affine: Affine, (outputs, inputs): (usize, usize), device: &Device) -> Result<Self> {
        let Affine { zero, part, steps, offsets, block } = affine;
        let parts = inputs / part;
        let each = |values: Vec<f32>| Tensor::from_vec(values, (outputs, parts, 1), device);
        Ok(Self {
            zero: f64::from(zero),
            steps: each(steps)?,
            offsets: offsets.map(each).transpose()?,
            parts: (outputs, parts, part),
            blocks: (outputs, inputs / block, block),
            dims: (outputs, inputs),
        })
    }

    /// Steps of codes from zero: what a factor multiplies. `[outputs, blocks, block]`.
    fn unscaled(&self, places: &Tensor) -> candle_core::Result<Tensor> {
        let codes = (places.round()?.clamp(0f32, f32::from(MAX_CODE))? - self.zero)?;
        codes.reshape(self.parts)?.broadcast_mul(&self.steps)?.reshape(self.blocks)
    }

    /// Offsets of all weights, likewise.
    fn spread(&self, offsets: &Tensor) -> candle_core::Result<Tensor> {
        offsets.broadcast_as(self.parts)?.contiguous()?.reshape(self.blocks)
    }

    /// The weight at these places, by these factors. Its gradient passes the rounding as if there were
    /// none.
    fn weight(&self, places: &Tensor, steps: &Tensor, offsets: Option<&Tensor>) -> Result<Tensor> {
        let (held, scale) = (places.detach(), steps.detach().unsqueeze(2)?);
        let mut weight = self.unscaled(&held)?.broadcast_mul(&scale)?;
        if let (Some(own), Some(factors)) = (&self.offsets, offsets) {
            weight =
                (weight - self.spread(own)?.broadcast_mul(&factors.detach().unsqueeze(2)?)?)?;
        }
        let weight = weight.reshape(self.dims)?;
        let back = self.clone();
        // Where there are no offsets, their place is filled with the steps.
        let third = offsets.unwrap_or(steps);
        let gradients = move |grad: &Tensor| back.back(&held, &scale, grad);
        Ok(with_gradients("four-bit-weight", [places, steps, third], weight, gradients)?)
    }

    /// The gradients of places, steps and offsets from that of the weight.
    fn back(
        &self,
        places: &Tensor,
        scale: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        let grad = grad.contiguous()?.reshape(self.blocks)?;
        let steps = (&grad * self.unscaled(places)?)?.sum(2)?;
        let offsets = match &self.offsets {
            Some(own) => Some((&grad * self.spread(own)?)?.sum(2)?.neg()?),
            None => None,
        };
        let scaled = grad.broadcast_mul(scale)?.reshape(self.parts)?;
        let places = scaled.broadcast_mul(&self.steps)?.reshape(self.dims)?;
        Ok([Some(places), Some(steps), offsets])
    }
}

//! Features of a layer, as the model sees them: a dictionary that reads the residual stream behind
//! the layer as a sum of directions. Sparse autoencoders are such dictionaries; what they are made of
//! is not known here.
//!
//! A feature is taken out along its direction alone: x' = x − a(x)·d, a its strength there. What the
//! dictionary does not explain (the error of its reconstruction) stays as it is, so that a model with
//! dictionaries and nothing cut is the model itself, bit for bit (Marks et al. 2024, arXiv
//! 2403.19647, error nodes).

use crate::custom_gradient::with_gradient;
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use uspx_domain::{Digest, Mask, ModelShape, UnitKind};

/// Features of each row, with their strengths or another number, row by row.
pub type Strengths = Vec<Vec<(u32, f32)>>;

/// What reads a residual stream as features, in the stream's own units.
pub trait Dictionary: fmt::Debug + Send + Sync {
    /// Which one it is: two that compute the same have the same.
    fn digest(&self) -> Digest;

    /// Values of a row of the stream.
    fn width(&self) -> usize;

    /// Features.
    fn features(&self) -> usize;

    /// The features of rows `[n, width]`, row-major.
    fn strengths(&self, rows: &[f32]) -> Strengths;

    /// The derivative by rows `[n, width]` of Σ weight · strength, over the features that each row is
    /// given, which it has: `[n, width]`. Which features a row has counts as given.
    fn pulled_back(&self, rows: &[f32], weights: &Strengths) -> Vec<f32>;

    /// What one unit of each feature adds to the stream: `[features, width]`, row-major.
    fn directions(&self) -> &[f32];

    /// That of one feature, `[width]`; empty of one that is not there.
    fn direction(&self, feature: u32) -> &[f32] {
        let start = feature as usize * self.width();
        self.directions().get(start..start + self.width()).unwrap_or_default()
    }
}

/// The dictionaries of a model, at most one a layer.
#[derive(Debug, Clone, Default)]
pub struct Dictionaries(BTreeMap<usize, Arc<dyn Dictionary>>);

impl Dictionaries {
    /// The one that reads the stream behind a layer.
    pub fn of_layer(&self, layer: usize) -> Option<&Arc<dyn Dictionary>> {
        self.0.get(&layer)
    }

    /// All of them, with their layers.
    pub fn all(&self) -> impl Iterator<Item = (usize, &Arc<dyn Dictionary>)> {
        self.0.iter().map(|(layer, dictionary)| (*layer, dictionary))
    }

    /// Adds one to a model of so many layers and such a width.
    pub(crate) fn attach(
        &mut self,
        (layers, hidden): (usize, usize),
        layer: usize,
        dictionary: Arc<dyn Dictionary>,
    ) -> Result<()> {
        let refuse = |what: String| Err(ModelError::Request(what));
        if layer >= layers {
            return refuse(format!("features of layer {layer}: the model has {layers} layers"));
        }
        let width = dictionary.width();
        if width != hidden {
            return refuse(format!(
                "features of layer {layer}: they are of activations of {width} values, the model's \
                 have {hidden}"
            ));
        }
        if self.0.insert(layer, dictionary).is_some() {
            return refuse(format!("layer {layer} has two sparse autoencoders: give one"));
        }
        Ok(())
    }

    /// The shape of a model that has these.
    pub(crate) fn shape(&self, mut shape: ModelShape) -> ModelShape {
        for (layer, dictionary) in self.all() {
            let place = shape.layers.get_mut(layer);
            place.into_iter().for_each(|l| l.features = dictionary.features() as u32);
        }
        shape
    }

    /// Refuses a mask that keeps features of layers that have none here.
    pub(crate) fn check(&self, mask: &Mask) -> Result<()> {
        let Some(lists) = mask.lists(UnitKind::Feature) else { return Ok(()) };
        let missing = |layer: &usize| !self.0.contains_key(layer);
        let mut named = (0..lists.len()).filter(|l| lists.get(*l).is_some_and(|l| !l.is_empty()));
        let what = match (self.0.is_empty(), named.find(missing)) {
            (true, _) => "the mask cuts features of sparse autoencoders".to_owned(),
            (_, Some(layer)) => format!("the mask keeps features of layer {layer}"),
            _ => return Ok(()),
        };
        let help = "give the folder of each sparse autoencoder that it was made with: --sae DIR";
        Err(ModelError::Request(format!("{what}: {help}")))
    }
}

/// The values of a tensor, row-major, as f32 in main memory.
///
/// # Errors
/// Those of the tensor library.
pub fn values(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// A tensor like another one, of such values.
fn like(values: Vec<f32>, other: &Tensor) -> candle_core::Result<Tensor> {
    let tensor = Tensor::from_vec(values, other.shape(), &Device::Cpu)?;
    tensor.to_dtype(other.dtype())?.to_device(other.device())
}

/// The stream `[n, width]` without the features that are gone, x − Σ a(x)·d, differentiable; none
/// where no row has any of them.
pub(crate) fn without(
    dictionary: &Arc<dyn Dictionary>,
    gone: &[bool],
    x: &Tensor,
) -> Result<Option<Tensor>> {
    let is_gone = |feature: u32| gone.get(feature as usize).copied().unwrap_or_default();
    let rows = values(x)?;
    let mut taken = dictionary.strengths(&rows);
    taken.iter_mut().for_each(|row| row.retain(|(feature, _)| is_gone(*feature)));
    if taken.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let mut moves = vec![0.0; rows.len()];
    for (row, features) in moves.chunks_exact_mut(dictionary.width().max(1)).zip(&taken) {
        for (feature, strength) in features {
            let direction = dictionary.direction(*feature);
            row.iter_mut().zip(direction).for_each(|(by, d)| *by -= strength * d);
        }
    }
    let plain = x.detach();
    let moved = (&plain + like(moves, &plain)?)?;
    let dictionary = dictionary.clone();
    let moved = with_gradient("without-features", x, moved, move |_, _, grad| {
        // x' = x − Σ a(x)·d: of grad the part g·d comes back along −∂a/∂x.
        let slopes = values(grad)?;
        let each = slopes.chunks_exact(dictionary.width().max(1)).zip(&taken);
        let weights = each.map(|(slope, features)| {
            let along = |feature: u32| -> f32 {
                slope.iter().zip(dictionary.direction(feature)).map(|(g, d)| g * d).sum()
            };
            features.iter().map(|(feature, _)| (*feature, -along(*feature))).collect()
        });
        let back = dictionary.pulled_back(&rows, &weights.collect());
        grad + like(back, grad)?
    })?;
    Ok(Some(moved))
}

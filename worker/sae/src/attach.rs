//! An SAE as a dictionary of a model's layer: its features become units, which probes measure and
//! masks cut.

use crate::number::{Number, add_scaled, dot};
use crate::parameters::row_of;
use crate::place::{Place, Site};
use crate::sae::{Sae, Slopes};
use crate::select::Select;
use crate::{Normalisation, Result, SaeError};
use std::sync::Arc;
use uspx_domain::Digest;
use uspx_model::LoadedModel;
use uspx_model::dictionary::{Dictionary, Strengths};

/// Pre-activations that are there at once: rows go one part after another.
const AT_ONCE: usize = 1 << 22;

/// Bytes beside the weights that reading features takes, however many rows there are.
pub(crate) const READING: u64 = 4 * AT_ONCE as u64;

/// An SAE that reads a layer.
#[derive(Debug)]
struct Reader {
    sae: Sae<f32>,
    digest: Digest,
}

impl Dictionary for Reader {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn width(&self) -> usize {
        self.sae.parameters.width
    }

    fn features(&self) -> usize {
        self.sae.parameters.features()
    }

    fn strengths(&self, rows: &[f32]) -> Strengths {
        let together = (AT_ONCE / self.features().max(1)).max(1) * self.width().max(1);
        rows.chunks(together).flat_map(|part| self.sae.strengths(part)).collect()
    }

    fn pulled_back(&self, rows: &[f32], weights: &Strengths) -> Vec<f32> {
        let mut back = vec![0.0; rows.len()];
        let width = self.width().max(1);
        let each = back.chunks_exact_mut(width).zip(rows.chunks_exact(width)).zip(weights);
        each.for_each(|((into, row), weights)| self.sae.pull_back(row, weights, into));
        back
    }

    fn directions(&self) -> &[f32] {
        &self.sae.parameters.decoder
    }
}

/// Makes an SAE's features units of the model: of the layer whose output it reads. `skip` are the
/// tokens at the beginning of every prompt that it was not made for.
///
/// # Errors
/// An SAE that does not read the residual stream behind a layer, skips tokens or is of another width;
/// a layer that has one already.
pub fn attach(model: &mut LoadedModel, sae: Sae<f32>, (place, skip): (Place, usize)) -> Result<()> {
    let layer = layer_of(place)?;
    if skip > 0 {
        return Err(SaeError::Skips(skip));
    }
    let digest = digest(&sae);
    Ok(model.attach(layer, Arc::new(Reader { sae, digest }))?)
}

/// The layer whose features an SAE at `place` reads. What enters a layer is what leaves the one
/// before it.
///
/// # Errors
/// Another place than the residual stream behind a layer.
pub fn layer_of(place: Place) -> Result<usize> {
    match place {
        Place { layer, site: Site::ResidPost } => Ok(layer),
        Place { layer: layer @ 1.., site: Site::ResidPre } => Ok(layer - 1),
        _ => Err(SaeError::Unserved(place)),
    }
}

impl<T: Number> Sae<T> {
    /// The features of rows `[n, width]`, row by row, in the rows' own units: x is the sum of strength
    /// times direction, and what no feature explains.
    pub fn strengths(&self, rows: &[T]) -> Vec<Vec<(u32, T)>> {
        let (codes, undo) = self.encode(rows);
        let scaled = |(row, (_, scale)): (usize, &(T, T))| {
            codes.row(row).map(|(feature, value)| (feature, value * *scale)).collect()
        };
        undo.iter().enumerate().map(scaled).collect()
    }
}

impl<T: Number> Sae<T> {
    /// Adds the derivative by a row of Σ weight · strength to `into`, `[width]` both.
    fn pull_back(&self, row: &[T], weights: &[(u32, T)], into: &mut [T]) {
        let p = &self.parameters;
        let Slopes { centre, gain, gain_by_scale, scale } = self.normalisation.slopes(row);
        let centred: Vec<T> = row.iter().map(|x| *x - centre).collect();
        let (mut by_row, mut by_scale) = (vec![T::zero(); into.len()], T::zero());
        for (feature, weight) in weights {
            let encoder = row_of(&p.encoder, p.width, *feature);
            let bias = p.encoder_bias.get(*feature as usize).copied().unwrap_or_default();
            add_scaled(&mut by_row, *weight * gain, encoder);
            let constant = bias - dot(encoder, &p.decoder_bias);
            by_scale += *weight * (gain_by_scale * dot(encoder, &centred) + constant);
        }
        if self.normalisation == Normalisation::LayerNorm {
            let mean = by_row.iter().copied().sum::<T>() / T::of(by_row.len() as f64);
            by_row.iter_mut().for_each(|x| *x -= mean);
        }
        add_scaled(into, T::one(), &by_row);
        add_scaled(into, by_scale * scale, &centred);
    }
}

/// The digest of all that decides what an SAE computes.
pub fn digest(sae: &Sae<f32>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut number = |n: u64| {
        hasher.update(&n.to_le_bytes());
    };
    number(sae.parameters.width as u64);
    number(match sae.normalisation {
        Normalisation::None => 0,
        Normalisation::ConstantNorm => 1,
        Normalisation::LayerNorm => 2,
    });
    let thresholds: &[f32] = match &sae.select {
        Select::Positive => &[],
        Select::TopK(k) | Select::BatchTopK(k) => {
            number(*k as u64);
            &[]
        }
        Select::Above(thresholds) => thresholds,
    };
    let lists = sae.parameters.lists().map(Vec::as_slice);
    for list in lists.into_iter().chain([thresholds]) {
        hasher.update(&(list.len() as u64).to_le_bytes());
        list.iter().for_each(|value| {
            hasher.update(&value.to_le_bytes());
        });
    }
    Digest(*hasher.finalize().as_bytes())
}

//! The numbers of an SAE that are learned; their gradients and moments have the same shape.

use crate::codes::Codes;
use crate::number::{Number, add_scaled, dot, times_transposed};
use rand::Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

/// Encoder and decoder. A feature's row lies in one piece in both, so that what follows the few
/// active features reads in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters<T> {
    /// Values of an activation: d_in.
    pub width: usize,
    /// `[features, width]`: SAELens' W_enc, transposed.
    pub encoder: Vec<T>,
    /// `[features]`: b_enc.
    pub encoder_bias: Vec<T>,
    /// `[features, width]`: W_dec.
    pub decoder: Vec<T>,
    /// `[width]`: b_dec.
    pub decoder_bias: Vec<T>,
}

impl<T: Number> Parameters<T> {
    /// All zero.
    pub fn zero(width: usize, features: usize) -> Self {
        let matrix = vec![T::zero(); width * features];
        Self {
            width,
            encoder: matrix.clone(),
            encoder_bias: vec![T::zero(); features],
            decoder: matrix,
            decoder_bias: vec![T::zero(); width],
        }
    }

    /// Random directions of norm 1, the encoder being the decoder's transpose (Gao et al. 2024,
    /// appendix A.1); no biases.
    pub fn random(width: usize, features: usize, random: &mut impl Rng) -> Self {
        let mut made = Self::zero(width, features);
        for value in &mut made.decoder {
            *value = T::of(random.sample(StandardNormal));
        }
        made.normalise_decoder();
        made.encoder.clone_from(&made.decoder);
        made
    }

    /// Features: d_sae.
    pub fn features(&self) -> usize {
        self.encoder_bias.len()
    }

    /// x − b_dec, of rows x, `[n, width]`.
    pub fn centred(&self, rows: &[T]) -> Vec<T> {
        let bias = self.decoder_bias.iter().cycle();
        rows.iter().zip(bias).map(|(x, bias)| *x - *bias).collect()
    }

    /// What features are chosen by, of centred rows `[n, width]`: `[n, features]`.
    pub fn pre_activations(&self, centred: &[T]) -> Vec<T> {
        let mut all = times_transposed(centred, &self.encoder, self.width);
        all.par_chunks_exact_mut(self.features().max(1))
            .for_each(|row| add_scaled(row, T::one(), &self.encoder_bias));
        all
    }

    /// The sum of each row's features, without the bias: `[n, width]`.
    pub fn sums(&self, codes: &Codes<T>) -> Vec<T> {
        let mut sums = vec![T::zero(); codes.rows() * self.width];
        sums.par_chunks_exact_mut(self.width.max(1)).enumerate().for_each(|(at, sum)| {
            for (feature, value) in codes.row(at) {
                add_scaled(sum, value, self.direction(feature));
            }
        });
        sums
    }

    /// What the codes stand for: `[n, width]`.
    pub fn decode(&self, codes: &Codes<T>) -> Vec<T> {
        let mut rows = self.sums(codes);
        rows.chunks_exact_mut(self.width.max(1))
            .for_each(|row| add_scaled(row, T::one(), &self.decoder_bias));
        rows
    }

    /// A feature's row of the decoder, `[width]`; none of one that is not there.
    pub fn direction(&self, feature: u32) -> &[T] {
        row_of(&self.decoder, self.width, feature)
    }

    /// Scales every row of the decoder to norm 1; one of zeros stays.
    pub(crate) fn normalise_decoder(&mut self) {
        self.decoder.par_chunks_exact_mut(self.width.max(1)).for_each(|row| {
            let norm = dot(row, row).sqrt();
            if norm > T::zero() {
                row.iter_mut().for_each(|value| *value /= norm);
            }
        });
    }

    /// Takes from a gradient what would only change the norms of the decoder's rows.
    pub(crate) fn without_parallel(&self, gradient: &mut Self) {
        let rows = self.decoder.par_chunks_exact(self.width.max(1));
        let changes = gradient.decoder.par_chunks_exact_mut(self.width.max(1));
        changes.zip(rows).for_each(|(change, row)| {
            let along = dot(change, row);
            add_scaled(change, -along, row);
        });
    }

    /// The four lists: encoder, its bias, decoder, its bias.
    pub fn lists(&self) -> [&Vec<T>; 4] {
        [&self.encoder, &self.encoder_bias, &self.decoder, &self.decoder_bias]
    }

    /// The same, to change.
    pub fn lists_mut(&mut self) -> [&mut Vec<T>; 4] {
        let Self { encoder, encoder_bias, decoder, decoder_bias, .. } = self;
        [encoder, encoder_bias, decoder, decoder_bias]
    }
}

/// A row of a matrix; empty where there is none.
pub(crate) fn row_of<T>(matrix: &[T], width: usize, row: u32) -> &[T] {
    let start = row as usize * width;
    matrix.get(start..start + width).unwrap_or_default()
}

//! A matrix in bitsandbytes' NF4: 64 values along its rows share a scale, each is a code of 4 bits, and the
//! scales themselves are quantised once more ([`double`]): 4.13 bits a value.
//!
//! The blocks are of the values as they lie, row after row: where a row is not a whole number of blocks
//! they go over its end. Products go through f32, a panel of weights at a time.
//!
//! Indexing: a matrix is made with all of its codes and scales, and products stay within its rows.
#![allow(clippy::indexing_slicing)]

mod codes;
mod double;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rayon::prelude::*;

use crate::row_panels::{self, Rows};
use crate::{KernelError, check_length};
use codes::{VALUES, nearest};
use double::Scales;

/// Values under one scale.
const BLOCK: usize = 64;

/// Values that a thread quantises at least.
const SHARE: usize = 1 << 14;

/// A frozen matrix [rows, columns] (a linear map's weight, out × in) in NF4. Clones share the bytes.
#[derive(Clone)]
pub struct Nf4Matrix {
    rows: usize,
    columns: usize,
    /// Two codes a byte, the first in the high nibble.
    codes: Arc<Vec<u8>>,
    scales: Arc<Scales>,
}

/// What a matrix consists of. Value i is `NF4[code of i] · scale(i / 64)`, where scale(b) is
/// `numbers[scales[b]] · numbers[257 + b / 256] + numbers[256]`, each operation rounded.
#[derive(Debug, Clone)]
pub struct Nf4Parts<'a> {
    /// Two codes a byte, the first in the high nibble.
    pub codes: &'a [u8],
    /// The blocks' scales, as codes of their own.
    pub scales: &'a [u8],
    /// The 256 steps that these stand for; what is added to all; the largest magnitude of each group of 256.
    pub numbers: Vec<f32>,
}

impl std::fmt::Debug for Nf4Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Nf4Matrix([{}, {}])", self.rows, self.columns)
    }
}

impl Nf4Matrix {
    /// The matrix nearest to `values`, row-major.
    ///
    /// # Errors
    /// `values` has not the length of that shape, or holds what is not a finite number.
    pub fn quantise(rows: usize, columns: usize, values: &[f32]) -> Result<Self, KernelError> {
        check_length("the values of an NF4 matrix", rows, columns, values.len())?;
        if !values.par_chunks(SHARE).all(|part| part.iter().all(|value| value.is_finite())) {
            return Err(KernelError::NotFinite { rows, columns });
        }
        let blocks = values.par_chunks(BLOCK).with_min_len(SHARE / BLOCK);
        let mut codes = vec![0; values.len().div_ceil(2)];
        let places = codes.par_chunks_mut(BLOCK / 2);
        let one = |(block, codes): (&[f32], &mut [u8])| {
            let scale = scale(block);
            pack(block, scale, codes);
            scale
        };
        let scales: Vec<f32> = blocks.zip(places).map(one).collect();
        let scales = Scales::new(&scales);
        Ok(Self { rows, columns, codes: Arc::new(codes), scales: Arc::new(scales) })
    }

    /// Rows: outputs of the linear map.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: inputs of the linear map.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes that so many values of one matrix take in memory.
    #[must_use]
    pub fn bytes_of(values: usize) -> usize {
        values.div_ceil(2) + Scales::bytes_of(values.div_ceil(BLOCK))
    }

    /// y = x·Wᵀ in f32: x [n, columns], y [n, rows] (overwritten).
    ///
    /// # Errors
    /// A buffer's length does not fit.
    pub fn multiply(&self, x: &[f32], n: usize, y: &mut [f32]) -> Result<(), KernelError> {
        row_panels::multiply(self, x, n, y)
    }

    /// g·W: g [n, rows], out [n, columns] (overwritten): the gradient with respect to x.
    ///
    /// # Errors
    /// A buffer's length does not fit.
    pub fn multiply_transposed(
        &self,
        g: &[f32],
        n: usize,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        row_panels::multiply_transposed(self, g, n, out)
    }

    /// All values as f32, row-major.
    #[must_use]
    pub fn expand(&self) -> Vec<f32> {
        row_panels::expand(self)
    }

    /// The bytes as a device has them that expands the matrix itself.
    #[must_use]
    pub fn parts(&self) -> Nf4Parts<'_> {
        let (scales, numbers) = self.scales.parts();
        Nf4Parts { codes: &self.codes, scales, numbers }
    }

    fn code(&self, at: usize) -> usize {
        usize::from(self.codes[at / 2] >> (4 * (1 - at % 2)) & 15)
    }

    /// The values of one block from value `at` of the matrix on, as many as fit `out`.
    fn expand_block(&self, at: usize, out: &mut [f32]) {
        let scale = self.scales.get(at / BLOCK);
        let values = VALUES.map(|value| value * scale);
        if at.is_multiple_of(2) && out.len().is_multiple_of(2) {
            let bytes = &self.codes[at / 2..][..out.len() / 2];
            for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
                *pair = [values[usize::from(byte >> 4)], values[usize::from(byte & 15)]];
            }
            return;
        }
        for (place, out) in out.iter_mut().enumerate() {
            *out = values[self.code(at + place)];
        }
    }
}

impl Rows for Nf4Matrix {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    fn expand_rows(&self, first: usize, mut out: &mut [f32]) {
        let mut at = first * self.columns;
        while !out.is_empty() {
            let (block, rest) = out.split_at_mut(out.len().min(BLOCK - at % BLOCK));
            self.expand_block(at, block);
            at += block.len();
            out = rest;
        }
    }
}

/// The largest magnitude.
fn absmax(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |largest, value| largest.max(value.abs()))
}

/// A block's scale.
fn scale(block: &[f32]) -> f32 {
    absmax(block.iter().copied())
}

/// The smallest scale that is divided by, so that what is divided stays finite.
const LEAST: f32 = 1e-38;

/// x in parts of its block's scale, −1 to 1. bitsandbytes multiplies whole blocks by one over it, and
/// divides the last one where that is a part of a block.
fn scaled(x: f32, scale: f32, whole: bool) -> f32 {
    let scale = scale.max(LEAST);
    let part = if whole { x * (1.0 / scale) } else { x / scale };
    part.clamp(-1.0, 1.0)
}

/// The codes of a block, two a byte.
fn pack(block: &[f32], scale: f32, codes: &mut [u8]) {
    let code = |x: &f32| nearest(scaled(*x, scale, block.len() == BLOCK));
    for (pair, byte) in block.chunks(2).zip(codes) {
        // What pads an odd count is a zero.
        let [first, second] = [pair.first(), pair.get(1)].map(|x| code(x.unwrap_or(&0.0)));
        *byte = first << 4 | second;
    }
}

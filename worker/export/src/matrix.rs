//! A square f64 matrix for the quantiser, and the triangular factor that GPTQ needs, made in place: a
//! feed-forward input of 14,336 values has second moments of 1.6 GB, of which no second one may be there.
//!
//! Everything is f64: a Hessian of language-model activations has a condition number near 1e7 even
//! when damped, which eats all of f32's 7 digits in the factorisation (`f32_would_not_do` shows
//! it).
#![allow(clippy::indexing_slicing)] // Every index is below `side`, which `new` ties to the length of `data`.

use crate::product::{Strided, multiply};
use crate::{ExportError, Result};
use rayon::prelude::*;
use std::ops::Range;

/// Rows and columns that are factored together, so that most of the work is matrix products.
pub(crate) const BLOCK: usize = 128;

/// A symmetric matrix, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct SquareMatrix {
    side: usize,
    data: Vec<f64>,
}

impl SquareMatrix {
    /// All zeros.
    pub fn zeros(side: usize) -> Self {
        Self { side, data: vec![0.0; side * side] }
    }

    /// From its values, row by row.
    ///
    /// # Errors
    /// [`ExportError::Shape`] where they are not as many as rows and columns make.
    pub fn new(side: usize, data: Vec<f64>) -> Result<Self> {
        if side.checked_mul(side) != Some(data.len()) {
            let (name, got) = ("square matrix".into(), vec![data.len()]);
            return Err(ExportError::Shape { name, got, want: format!("[{side}, {side}]") });
        }
        Ok(Self { side, data })
    }

    /// Rows, and columns.
    pub fn side(&self) -> usize {
        self.side
    }

    /// One row. Panics outside of it, as slices do.
    pub fn row(&self, r: usize) -> &[f64] {
        &self.data[r * self.side..(r + 1) * self.side]
    }

    /// The diagonal.
    pub fn diagonal(&self) -> Vec<f64> {
        (0..self.side).map(|i| self.data[i * self.side + i]).collect()
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f64] {
        &self.data
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// The upper triangle's values into the lower one.
    pub(crate) fn mirror(&mut self) {
        let side = self.side;
        // Block by block, so that what is read by columns stays in the cache.
        for rows in blocks(side) {
            for columns in blocks(rows.end) {
                for r in rows.clone() {
                    for c in columns.start..columns.end.min(r) {
                        self.data[r * side + c] = self.data[c * side + r];
                    }
                }
            }
        }
    }

    /// Rows and columns in another order: those at `i` are those that were at `order[i]`, which is a
    /// permutation.
    pub(crate) fn reorder(&mut self, order: &[usize]) {
        let side = self.side;
        let mut moved = vec![false; side];
        let mut kept = vec![0.0; side];
        // Along each cycle a row moves to where its follower was.
        for start in 0..side {
            if moved[start] || order[start] == start {
                continue;
            }
            kept.copy_from_slice(self.row(start));
            let mut at = start;
            while order[at] != start {
                let from = order[at] * side;
                self.data.copy_within(from..from + side, at * side);
                moved[at] = true;
                at = order[at];
            }
            self.data[at * side..(at + 1) * side].copy_from_slice(&kept);
            moved[at] = true;
        }
        self.data.par_chunks_exact_mut(side.max(1)).for_each_init(Vec::new, |old, row| {
            old.clear();
            old.extend_from_slice(row);
            row.iter_mut().zip(order).for_each(|(value, from)| *value = old[*from]);
        });
    }

    /// R, upper triangular with a positive diagonal, of H + D = R·Rᵀ where D is diagonal: in H's upper
    /// triangle and on its diagonal. What lies below stays as it was.
    ///
    /// False where H + D is not positive definite: H is then as before.
    ///
    /// # Errors
    /// Where a product fails.
    pub(crate) fn factor(&mut self, added: &[f64]) -> Result<bool> {
        let kept = self.diagonal();
        for (i, added) in added.iter().enumerate() {
            self.data[i * self.side + i] += added;
        }
        for block in blocks(self.side).rev() {
            if !self.factor_block(block)? {
                self.restore(&kept);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The upper triangle from the lower one, and the diagonal.
    fn restore(&mut self, diagonal: &[f64]) {
        let side = self.side;
        for rows in blocks(side) {
            for columns in blocks(side).filter(|columns| columns.end > rows.start) {
                for r in rows.clone() {
                    for c in columns.start.max(r + 1)..columns.end {
                        self.data[r * side + c] = self.data[c * side + r];
                    }
                }
            }
        }
        for (i, value) in diagonal.iter().enumerate() {
            self.data[i * side + i] = *value;
        }
    }

    /// The columns of a block, all columns after it being done: its triangle is factored, the rows above
    /// divided by it, and what they then explain is taken from the columns before.
    fn factor_block(&mut self, block: Range<usize>) -> Result<bool> {
        let (side, width) = (self.side, block.len());
        let mut own = self.triangle(block.clone());
        if !factor_triangle(&mut own, width) {
            return Ok(false);
        }
        for (r, row) in own.chunks_exact(width).enumerate() {
            let at = (block.start + r) * side + block.start;
            self.data[at + r..at + width].copy_from_slice(&row[r..]);
        }
        let inverse = invert_triangle(&own, width);
        let mut solved = vec![0.0; block.start * width];
        let above = self.data[..block.start * side].par_chunks_mut(BLOCK * side);
        above.zip(solved.par_chunks_mut(BLOCK * width)).try_for_each(|(rows, solved)| {
            let size = (rows.len() / side, width, width);
            let given = Strided::rows(&rows[block.start..], side);
            let by = Strided::rows(&inverse, width).transposed();
            multiply((solved, width), size, (given, by), (0.0, 1.0))?;
            for (row, solved) in rows.chunks_exact_mut(side).zip(solved.chunks_exact(width)) {
                row[block.clone()].copy_from_slice(solved);
            }
            Ok::<_, ExportError>(())
        })?;
        self.take_explained(&solved, block)?;
        Ok(true)
    }

    /// Takes S·Sᵀ from the upper triangle before a block, S being `solved`, `[block.start, block]`.
    fn take_explained(&mut self, solved: &[f64], block: Range<usize>) -> Result<()> {
        let (side, end, width) = (self.side, block.start, block.len());
        let rows = self.data[..end * side].par_chunks_mut(BLOCK * side).enumerate();
        rows.try_for_each(|(at, rows)| {
            let (first, count) = (at * BLOCK, rows.len() / side);
            let own = Strided::rows(&solved[first * width..], width);
            let mut square = vec![0.0; count * count];
            let size = (count, count, width);
            multiply((&mut square, count), size, (own, own.transposed()), (0.0, 1.0))?;
            for (r, (row, square)) in
                rows.chunks_exact_mut(side).zip(square.chunks_exact(count)).enumerate()
            {
                let upper = row[first + r..first + count].iter_mut().zip(&square[r..]);
                upper.for_each(|(value, taken)| *value -= taken);
            }
            let next = first + count;
            if next == end {
                return Ok(());
            }
            let others = Strided::rows(&solved[next * width..], width).transposed();
            let size = (count, end - next, width);
            multiply((&mut rows[next..], side), size, (own, others), (1.0, -1.0))
        })
    }

    /// The upper triangle of a block on the diagonal, `[block, block]`, zeros below.
    pub(crate) fn triangle(&self, block: Range<usize>) -> Vec<f64> {
        let mut own = vec![0.0; block.len() * block.len()];
        for (r, row) in own.chunks_exact_mut(block.len()).enumerate() {
            row[r..].copy_from_slice(&self.row(block.start + r)[block.start + r..block.end]);
        }
        own
    }
}

/// The rows of each block.
fn blocks(side: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    (0..side.div_ceil(BLOCK)).map(move |at| at * BLOCK..((at + 1) * BLOCK).min(side))
}

/// R of A = R·Rᵀ in place of the upper triangle A; false where A is not positive definite.
fn factor_triangle(a: &mut [f64], width: usize) -> bool {
    for j in (0..width).rev() {
        let square = a[j * width + j];
        // Not `<= 0`: a NaN must be refused too.
        if !(square > 0.0 && square.is_finite()) {
            return false;
        }
        let pivot = square.sqrt();
        a[j * width + j] = pivot;
        for i in 0..j {
            a[i * width + j] /= pivot;
        }
        for i in 0..j {
            let factor = a[i * width + j];
            for l in i..j {
                a[i * width + l] -= factor * a[l * width + j];
            }
        }
    }
    true
}

/// The inverse of an upper triangle with a positive diagonal.
pub(crate) fn invert_triangle(r: &[f64], width: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; width * width];
    for i in (0..width).rev() {
        inverse[i * width + i] = 1.0;
        for l in i + 1..width {
            let (factor, (head, tail)) = (r[i * width + l], inverse.split_at_mut(l * width));
            let row = head[i * width + l..(i + 1) * width].iter_mut();
            row.zip(&tail[l..width]).for_each(|(value, below)| *value -= factor * below);
        }
        let pivot = r[i * width + i];
        inverse[i * width + i..(i + 1) * width].iter_mut().for_each(|value| *value /= pivot);
    }
    inverse
}

#[cfg(test)]
mod tests;

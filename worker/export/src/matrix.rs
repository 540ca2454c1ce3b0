//! Dense f64 matrices for the quantiser: blocks, products (candle's GEMM) and the triangular factor
//! GPTQ needs.
//!
//! Everything is f64: a Hessian of language-model activations has a condition number near 1e7 even
//! when damped, which eats all of f32's 7 digits in the factorisation (`f32_would_not_do` shows
//! it).
#![allow(clippy::indexing_slicing)] // Every index is below `rows` or `cols`, which `new` ties to the length of `data`.

use crate::Result;
use candle_core::{Device, Tensor};
use std::ops::Range;

/// Columns that are factored together, so that most of the work is matrix products.
const PANEL: usize = 128;

/// A row-major matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseMatrix {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

impl DenseMatrix {
    /// All zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// From a function of row and column.
    pub fn from_fn(rows: usize, cols: usize, mut f: impl FnMut(usize, usize) -> f64) -> Self {
        let mut m = Self::zeros(rows, cols);
        for r in 0..rows {
            for (c, v) in m.row_mut(r).iter_mut().enumerate() {
                *v = f(r, c);
            }
        }
        m
    }

    /// From f32 rows of `cols` values; what does not fill a row is left out.
    pub fn from_rows(values: &[f32], cols: usize) -> Self {
        let rows = values.len().checked_div(cols).unwrap_or(0);
        Self { rows, cols, data: values.iter().take(rows * cols).map(|v| f64::from(*v)).collect() }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// One row. Panics outside of it, as slices do.
    pub fn row(&self, r: usize) -> &[f64] {
        &self.data[r * self.cols..(r + 1) * self.cols]
    }

    /// One row, to change.
    pub fn row_mut(&mut self, r: usize) -> &mut [f64] {
        &mut self.data[r * self.cols..(r + 1) * self.cols]
    }

    /// Row `r` to change beside row `other` to read; they must differ.
    pub fn row_pair(&mut self, r: usize, other: usize) -> (&mut [f64], &[f64]) {
        let w = self.cols;
        if r > other {
            let (head, tail) = self.data.split_at_mut(r * w);
            (&mut tail[..w], &head[other * w..(other + 1) * w])
        } else {
            let (head, tail) = self.data.split_at_mut(other * w);
            (&mut head[r * w..(r + 1) * w], &tail[..w])
        }
    }

    /// All values, row by row.
    pub fn values_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// The diagonal.
    pub fn diagonal(&self) -> Vec<f64> {
        (0..self.rows.min(self.cols)).map(|i| self.row(i)[i]).collect()
    }

    fn block(&self, rows: Range<usize>, cols: Range<usize>) -> DenseMatrix {
        let data = rows.clone().flat_map(|r| self.row(r)[cols.clone()].iter().copied()).collect();
        DenseMatrix { rows: rows.len(), cols: cols.len(), data }
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.data, (self.rows, self.cols), &Device::Cpu)?)
    }

    /// self · other
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub fn times(&self, other: &DenseMatrix) -> Result<DenseMatrix> {
        product(&self.tensor()?, &other.tensor()?)
    }

    /// Subtracts `product` from the block whose first corner is `at`.
    fn subtract(&mut self, at: (usize, usize), product: &DenseMatrix) {
        for r in 0..product.rows {
            let target = &mut self.row_mut(at.0 + r)[at.1..at.1 + product.cols];
            target.iter_mut().zip(product.row(r)).for_each(|(t, p)| *t -= p);
        }
    }

    /// Rows from `from` on: self −= u[block, from..]ᵀ · e, GPTQ's delayed update.
    ///
    /// # Errors
    /// Where the shapes do not fit.
    pub(crate) fn propagate(
        &mut self,
        u: &DenseMatrix,
        block: Range<usize>,
        errors: &DenseMatrix,
    ) -> Result<()> {
        let from = block.end;
        if from < self.rows {
            let factor = u.block(block, from..u.cols).tensor()?.t()?;
            let update = product(&factor, &errors.tensor()?)?;
            self.subtract((from, 0), &update);
        }
        Ok(())
    }
}

fn product(a: &Tensor, b: &Tensor) -> Result<DenseMatrix> {
    let c = a.matmul(b)?;
    let (rows, cols) = c.dims2()?;
    Ok(DenseMatrix { rows, cols, data: c.flatten_all()?.to_vec1()? })
}

/// The upper triangular U with H⁻¹ = UᵀU, which GPTQ reads row by row (Frantar et al. 2022), or
/// `None` where H is not positive definite.
///
/// H⁻¹ itself is never formed: with J the reversal of order and J·H·J = L·Lᵀ, H is R·Rᵀ for the
/// upper R = J·L·J, hence U = R⁻¹ = J·L⁻¹·J. That is one factorisation and one triangular inverse,
/// and loses fewer digits than inverting first.
///
/// # Errors
/// Where a product fails.
pub fn inverse_factor(h: &DenseMatrix) -> Result<Option<DenseMatrix>> {
    let n = h.rows;
    let reversed = DenseMatrix::from_fn(n, n, |r, c| h.row(n - 1 - r)[n - 1 - c]);
    let Some(lower) = cholesky(reversed)? else { return Ok(None) };
    let inverse = invert_lower(&lower)?;
    Ok(Some(DenseMatrix::from_fn(n, n, |r, c| inverse.row(n - 1 - r)[n - 1 - c])))
}

/// L of A = L·Lᵀ, panel by panel, left-looking; `None` where A is not positive definite.
fn cholesky(mut a: DenseMatrix) -> Result<Option<DenseMatrix>> {
    let n = a.rows;
    for start in (0..n).step_by(PANEL) {
        let end = (start + PANEL).min(n);
        if start > 0 {
            let left = a.block(start..n, 0..start).tensor()?;
            let top = a.block(start..end, 0..start).tensor()?.t()?;
            let update = product(&left, &top)?;
            a.subtract((start, start), &update);
        }
        if !factor_panel(&mut a, start, end) {
            return Ok(None);
        }
    }
    for r in 0..n {
        a.row_mut(r)[r + 1..].fill(0.0);
    }
    Ok(Some(a))
}

/// Factors columns `start..end` from row `start` down; what is left of them has been subtracted
/// already.
fn factor_panel(a: &mut DenseMatrix, start: usize, end: usize) -> bool {
    for r in start..a.rows {
        for c in start..end.min(r) {
            let (row, other) = a.row_pair(r, c);
            row[c] = (row[c] - dot(&row[start..c], &other[start..c])) / other[c];
        }
        if r < end {
            let row = a.row_mut(r);
            let square = row[r] - dot(&row[start..r], &row[start..r]);
            // Not `<= 0`: a NaN must be refused too.
            if !(square > 0.0 && square.is_finite()) {
                return false;
            }
            row[r] = square.sqrt();
        }
    }
    true
}

/// L⁻¹ of a lower triangular L with a positive diagonal, panel by panel.
fn invert_lower(l: &DenseMatrix) -> Result<DenseMatrix> {
    let n = l.rows;
    let mut inverse = DenseMatrix::zeros(n, n);
    for start in (0..n).step_by(PANEL) {
        let end = (start + PANEL).min(n);
        if start > 0 {
            let done = inverse.block(0..start, 0..start);
            let carried = l.block(start..end, 0..start).times(&done)?;
            inverse.subtract((start, 0), &carried);
        }
        for r in start..end {
            inverse.row_mut(r)[r] = 1.0;
            for c in start..r {
                let factor = l.row(r)[c];
                let (row, above) = inverse.row_pair(r, c);
                row[..=c].iter_mut().zip(above).for_each(|(x, y)| *x -= factor * y);
            }
            let pivot = l.row(r)[r];
            inverse.row_mut(r)[..=r].iter_mut().for_each(|x| *x /= pivot);
        }
    }
    Ok(inverse)
}

/// Eight sums side by side, so that the compiler can use vectors.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (x, y) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = x.remainder().iter().zip(y.remainder()).map(|(p, q)| p * q).sum();
    let mut sums = [0f64; 8];
    for (p, q) in x.zip(y) {
        for i in 0..8 {
            sums[i] += p[i] * q[i];
        }
    }
    rest + sums.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    fn random(rows: usize, cols: usize) -> DenseMatrix {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        DenseMatrix::from_fn(rows, cols, |_, _| rng.random_range(-1.0..1.0))
    }

    fn gram(x: &DenseMatrix, ridge: f64) -> DenseMatrix {
        let t = DenseMatrix::from_fn(x.cols, x.rows, |r, c| x.row(c)[r]);
        let mut h = t.times(x).unwrap();
        (0..h.rows).for_each(|i| h.row_mut(i)[i] += ridge);
        h
    }

    fn worst(a: &DenseMatrix, b: impl Fn(usize, usize) -> f64) -> f64 {
        let at = |i: usize| (i / a.cols, i % a.cols);
        a.data.iter().enumerate().map(|(i, v)| (v - b(at(i).0, at(i).1)).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn factor_inverts_across_panels() {
        // 300 rows: three panels, the last one short.
        let h = gram(&random(400, 300), 1.0);
        let u = inverse_factor(&h).unwrap().unwrap();
        assert_eq!(
            worst(&u, |r, c| if c < r { 0.0 } else { u.row(r)[c] }),
            0.0,
            "not upper triangular"
        );
        let ut = DenseMatrix::from_fn(300, 300, |r, c| u.row(c)[r]);
        let unit = ut.times(&u).unwrap().times(&h).unwrap();
        assert!(worst(&unit, |r, c| f64::from(r == c)) < 1e-9);
    }

    #[test]
    fn refuses_the_indefinite() {
        let rank_one = DenseMatrix::from_fn(3, 3, |_, _| 1.0);
        assert_eq!(inverse_factor(&rank_one).unwrap(), None);
        let nan = DenseMatrix::from_fn(2, 2, |_, _| f64::NAN);
        assert_eq!(inverse_factor(&nan).unwrap(), None);
    }

    /// Rounding H to f32 alone, before any arithmetic, makes a nearly singular one indefinite; f64
    /// factors it.
    #[test]
    fn f32_would_not_do() {
        let mut x = random(400, 64);
        for r in 0..400 {
            let first = x.row(r)[0];
            x.row_mut(r)[1] = first * (1.0 + 1e-5 * x.row(r)[2]);
        }
        let h = gram(&x, 0.0);
        let rounded = DenseMatrix::from_fn(64, 64, |r, c| f64::from(h.row(r)[c] as f32));
        assert!(inverse_factor(&h).unwrap().is_some());
        assert_eq!(inverse_factor(&rounded).unwrap(), None);
    }
}

//! Products of matrices that lie in slices, by the `gemm` crate on one thread: who calls shares the work out.

use crate::{ExportError, Result};
use gemm::Parallelism;

/// A number that is multiplied: f32 or f64.
pub(crate) trait Number: Copy + PartialEq + Send + Sync + 'static {
    /// 0.
    const ZERO: Self;
}

impl Number for f32 {
    const ZERO: Self = 0.0;
}

impl Number for f64 {
    const ZERO: Self = 0.0;
}

/// A matrix to read: where it begins in a slice, and how far its next row and column are.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a, T> {
    values: &'a [T],
    row: usize,
    column: usize,
}

impl<'a, T> Strided<'a, T> {
    /// Rows that lie `width` apart.
    pub fn rows(values: &'a [T], width: usize) -> Self {
        Self { values, row: width, column: 1 }
    }

    /// The same turned over.
    pub fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        reach((rows, self.row), (columns, self.column)) <= self.values.len()
    }
}

/// One more than the place of the last value.
fn reach((rows, row): (usize, usize), (columns, column): (usize, usize)) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row + (columns - 1) * column + 1 }
}

/// out = kept·out + times·a·b for a `[m, k]` and b `[k, n]`; out's rows lie `width` apart.
///
/// # Errors
/// [`ExportError::Shape`] where a slice is too short for that.
pub(crate) fn multiply<T: Number>(
    (out, width): (&mut [T], usize),
    (m, n, k): (usize, usize, usize),
    (a, b): (Strided<'_, T>, Strided<'_, T>),
    (kept, times): (T, T),
) -> Result<()> {
    let fits = width >= n && reach((m, width), (n, 1)) <= out.len();
    if !fits || !a.holds(m, k) || !b.holds(k, n) {
        let got = vec![out.len(), a.values.len(), b.values.len()];
        let want = format!("a product of [{m}, {k}] and [{k}, {n}]");
        return Err(ExportError::Shape { name: "matrix".into(), got, want });
    }
    // SAFETY: the three slices were checked against the strides given here, and `out` is borrowed
    // alone, so that it overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            width as isize,
            kept != T::ZERO,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            kept,
            times,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_the_schoolbooks_and_leaves_what_lies_between_rows() {
        let a: Vec<f64> = (0..15).map(f64::from).collect();
        let b: Vec<f64> = (0..20).map(|v| f64::from(v * 7 % 11) - 5.0).collect();
        let mut out = vec![1.0; 12];
        // [3, 5] · [5, 2], b stored as its transpose in rows of 5 with two rows more.
        let sides = (Strided::rows(&a, 5), Strided::rows(&b, 5).transposed());
        multiply((&mut out, 4), (3, 2, 5), sides, (10.0, -1.0)).unwrap();
        for r in 0..3 {
            for c in 0..2 {
                let sum: f64 = (0..5).map(|i| a[r * 5 + i] * b[c * 5 + i]).sum();
                assert_eq!(out[r * 4 + c], 10.0 - sum);
            }
            assert_eq!(out[r * 4 + 2..r * 4 + 4], [1.0, 1.0]);
        }
        let short = (Strided::rows(&a, 5), Strided::rows(&b, 5));
        assert!(multiply((&mut out, 4), (3, 2, 6), short, (1.0, 1.0)).is_err());
        assert!(multiply((&mut out, 4), (4, 2, 5), short, (1.0, 1.0)).is_err());
        assert!(multiply((&mut out, 1), (3, 2, 5), short, (1.0, 1.0)).is_err());
    }
}

//! Products over slices, in f32 to work with and in f64 to prove gradients with.

use num_traits::{Float, FromPrimitive, NumAssign};
use std::iter::Sum;

/// A float that SAEs are computed in: f32 or f64.
pub trait Number:
    Float + FromPrimitive + NumAssign + Sum + Default + Send + Sync + std::fmt::Debug + 'static
{
    /// From a double.
    fn of(value: f64) -> Self {
        Self::from_f64(value).unwrap_or_else(Self::nan)
    }

    /// To a double.
    fn double(self) -> f64 {
        self.to_f64().unwrap_or(f64::NAN)
    }
}

impl Number for f32 {}
impl Number for f64 {}

/// Partial sums of a dot product, so that it runs in vector registers.
const LANES: usize = 16;

/// Σ a·b. The order of the sum depends on the length alone.
pub(crate) fn dot<T: Number>(a: &[T], b: &[T]) -> T {
    let (wide_a, wide_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = wide_a.remainder().iter().zip(wide_b.remainder());
    let rest: T = rest.map(|(x, y)| *x * *y).sum();
    let mut sums = [T::zero(); LANES];
    for (x, y) in wide_a.zip(wide_b) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += *x * *y;
        }
    }
    sums.into_iter().sum::<T>() + rest
}

/// into += scale · from.
pub(crate) fn add_scaled<T: Number>(into: &mut [T], scale: T, from: &[T]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into += scale * *from;
    }
}

/// The sum of the rows of `[n, width]`.
pub(crate) fn row_sum<T: Number>(rows: &[T], width: usize) -> Vec<T> {
    let mut sum = vec![T::zero(); width];
    for row in rows.chunks_exact(width) {
        add_scaled(&mut sum, T::one(), row);
    }
    sum
}

/// Σ‖x − x̄‖² over the rows of `[n, width]`.
pub(crate) fn variance<T: Number>(rows: &[T], width: usize) -> T {
    let count = T::of((rows.len() / width.max(1)).max(1) as f64);
    let mean: Vec<T> = row_sum(rows, width).into_iter().map(|sum| sum / count).collect();
    let squares = |row: &[T]| -> T { row.iter().zip(&mean).map(|(x, m)| (*x - *m).powi(2)).sum() };
    rows.chunks_exact(width).map(squares).sum()
}

/// a `[n, inner]` · bᵀ, b being `[columns, inner]`: `[n, columns]`, all row-major. What does not
/// make whole rows is left out.
pub(crate) fn times_transposed<T: Number>(a: &[T], b: &[T], inner: usize) -> Vec<T> {
    let (n, columns) = (a.len() / inner.max(1), b.len() / inner.max(1));
    let mut out = vec![T::zero(); n * columns];
    // SAFETY: `a` holds n rows and `b` columns rows of `inner` values, `out` n rows of `columns`;
    // the strides say so.
    unsafe {
        gemm::gemm(
            n,
            columns,
            inner,
            out.as_mut_ptr(),
            1,
            columns as isize,
            false,
            a.as_ptr(),
            1,
            inner as isize,
            b.as_ptr(),
            inner as isize,
            1,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_schoolbook() {
        let a: Vec<f64> = (0..6 * 37).map(|i| f64::from(i * 7 % 11) - 5.0).collect();
        let b: Vec<f64> = (0..4 * 37).map(|i| f64::from(i * 5 % 13) - 6.0).collect();
        let product = times_transposed(&a, &b, 37);
        assert_eq!(product.len(), 24);
        for (i, row) in a.chunks(37).enumerate() {
            for (j, column) in b.chunks(37).enumerate() {
                let sum: f64 = row.iter().zip(column).map(|(x, y)| x * y).sum();
                assert_eq!((product[i * 4 + j], dot(row, column)), (sum, sum));
            }
        }
        assert_eq!(variance(&[1.0, 2.0, 3.0, 6.0], 2), 10.0);
    }
}

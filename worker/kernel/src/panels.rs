//! Products in f32 for weights that no special kernel takes: a panel of weights at a time is
//! expanded to f32 and multiplied with the `gemm` crate, so the matrix is never in memory as f32 as
//! a whole.
//!
//! Every output value is summed within one panel, and a panel's size does not depend on the number
//! of threads: so neither does the result.
#![allow(clippy::indexing_slicing)]

use crate::raw::{Shared, for_each};
use crate::row_panels::product;
use crate::storage::{GROUP, Storage};

/// Values of a panel: 1 MiB of f32, so that it lies in the second-level cache.
const PANEL: usize = 1 << 18;

/// Rows or columns of a panel of a matrix whose other side is `other`.
fn width(other: usize) -> usize {
    (PANEL / other.max(1)).clamp(GROUP, 1024) / GROUP * GROUP
}

/// y = x·Wᵀ in f32: x [n, columns], y [n, rows].
pub(crate) fn multiply(
    w: &Storage,
    rows: usize,
    columns: usize,
    x: &[f32],
    n: usize,
    y: &mut [f32],
) {
    let width = width(columns);
    let y = Shared(y.as_mut_ptr());
    for_each(rows.div_ceil(width), |index| {
        let first = index * width;
        let count = width.min(rows - first);
        let mut panel = vec![0.0; count * columns];
        for (row, out) in panel.chunks_exact_mut(columns).enumerate() {
            w.row(columns, first + row, 0, out);
        }
        // SAFETY: y holds n rows of `rows` values (checked at the door); this panel writes its
        // columns alone.
        unsafe {
            let y = y.get().add(first);
            product(
                (n, count, columns),
                (y, rows),
                (x.as_ptr(), columns, 1),
                (panel.as_ptr(), 1, columns),
                false,
            );
        }
    });
}

/// g·W in f32: g [n, rows], out [n, columns].
pub(crate) fn multiply_transposed(
    w: &Storage,
    rows: usize,
    columns: usize,
    g: &[f32],
    n: usize,
    out: &mut [f32],
) {
    let width = width(rows);
    let out = Shared(out.as_mut_ptr());
    for_each(columns.div_ceil(width), |index| {
        let first = index * width;
        let count = width.min(columns - first);
        let mut panel = vec![0.0; count * rows];
        for (row, values) in panel.chunks_exact_mut(count).enumerate() {
            w.row(columns, row, first, values);
        }
        // SAFETY: out holds n rows of `columns` values (checked at the door); this panel writes its
        // columns alone.
        unsafe {
            let out = out.get().add(first);
            product(
                (n, count, rows),
                (out, columns),
                (g.as_ptr(), rows, 1),
                (panel.as_ptr(), count, 1),
                false,
            );
        }
    });
}

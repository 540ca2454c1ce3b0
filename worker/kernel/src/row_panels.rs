//! Products through f32 for matrices that are expanded row by row: a panel of weights at a time is
//! expanded and multiplied with the `gemm` crate.
//!
//! Every output value is summed within one panel, or panel after panel in order, so nothing depends
//! on the number of threads.
#![allow(clippy::indexing_slicing)]

use gemm::{Parallelism, gemm};
use rayon::prelude::*;

use crate::raw::Shared;
use crate::{KernelError, check_length};

/// A matrix [rows, columns] in a form of its own.
pub(crate) trait Rows: Sync {
    /// Rows and columns.
    fn shape(&self) -> (usize, usize);

    /// The values of whole rows from `first` on, as many as fit `out`.
    fn expand_rows(&self, first: usize, out: &mut [f32]);
}

/// Values of a panel: 1 MiB of f32, so that it lies in the second-level cache.
const PANEL: usize = 1 << 18;

/// Rows of a panel.
fn height(columns: usize) -> usize {
    (PANEL / columns.max(1)).clamp(32, 1024) / 32 * 32
}

/// All values, row-major.
pub(crate) fn expand(w: &impl Rows) -> Vec<f32> {
    let (rows, columns) = w.shape();
    let mut values = vec![0.0; rows * columns];
    w.expand_rows(0, &mut values);
    values
}

/// y = x·Wᵀ in f32: x [n, columns], y [n, rows] (overwritten).
///
/// # Errors
/// A buffer's length does not fit.
pub(crate) fn multiply(
    w: &impl Rows,
    x: &[f32],
    n: usize,
    y: &mut [f32],
) -> Result<(), KernelError> {
    let (rows, columns) = w.shape();
    check_length("x", n, columns, x.len())?;
    check_length("y", n, rows, y.len())?;
    match () {
        () if y.is_empty() => {}
        () if columns == 0 => y.fill(0.0),
        () => by_panels(w, x, n, y),
    }
    Ok(())
}

fn by_panels(w: &impl Rows, x: &[f32], n: usize, y: &mut [f32]) {
    let (rows, columns) = w.shape();
    let height = height(columns);
    let y = Shared(y.as_mut_ptr());
    (0..rows.div_ceil(height)).into_par_iter().for_each_init(Vec::new, |panel, index| {
        let first = index * height;
        let count = height.min(rows - first);
        panel.resize(count * columns, 0.0);
        w.expand_rows(first, panel);
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

/// Tokens of a thread's share of [`multiply_transposed`].
const SHARE: usize = 64;

/// g·W in f32: g [n, rows], out [n, columns] (overwritten).
///
/// # Errors
/// A buffer's length does not fit.
pub(crate) fn multiply_transposed(
    w: &impl Rows,
    g: &[f32],
    n: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (rows, columns) = w.shape();
    check_length("g", n, rows, g.len())?;
    check_length("out", n, columns, out.len())?;
    match () {
        () if out.is_empty() => {}
        () if rows == 0 => out.fill(0.0),
        () => transposed_by_panels(w, g, n, out),
    }
    Ok(())
}

/// The threads share the tokens; each panel is expanded for every share.
fn transposed_by_panels(w: &impl Rows, g: &[f32], n: usize, out: &mut [f32]) {
    let (rows, columns) = w.shape();
    let height = height(columns);
    let share = n.div_ceil(rayon::current_num_threads()).max(SHARE);
    out.par_chunks_mut(share * columns).zip(g.par_chunks(share * rows)).for_each_init(
        Vec::new,
        |panel, (out, g)| {
            let n = out.len() / columns;
            for first in (0..rows).step_by(height) {
                let count = height.min(rows - first);
                panel.resize(count * columns, 0.0);
                w.expand_rows(first, panel);
                // SAFETY: `out` holds n rows of `columns` values, `g` n of `rows`, the panel
                // `count` of `columns`.
                unsafe {
                    let g = g.as_ptr().add(first);
                    let out = (out.as_mut_ptr(), columns);
                    product(
                        (n, columns, count),
                        out,
                        (g, rows, 1),
                        (panel.as_ptr(), columns, 1),
                        first > 0,
                    );
                }
            }
        },
    );
}

/// out [m, n] = a [m, k] · b [k, n], or += where `add`, on this thread; operands are (pointer, row
/// stride, column stride).
///
/// # Safety
/// The operands must be valid for their shapes and strides, and nobody else may write `out`
/// meanwhile.
pub(crate) unsafe fn product(
    (m, n, k): (usize, usize, usize),
    out: (*mut f32, usize),
    a: (*const f32, usize, usize),
    b: (*const f32, usize, usize),
    add: bool,
) {
    let s = |stride: usize| stride as isize;
    let old = if add { 1.0 } else { 0.0 };
    // SAFETY: as promised by the caller.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.0,
            1,
            s(out.1),
            add,
            a.0,
            s(a.2),
            s(a.1),
            b.0,
            s(b.2),
            s(b.1),
            old,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

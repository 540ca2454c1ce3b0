//! Products with the block formats of GGUF files, multiplied as they are stored.
//!
//! Every format stores small integers (*codes*) whose groups share a scale, and in some a minimum:
//! w = scale·(code − o) − minimum with a fixed o. Activations become 16-bit integers per group of
//! 32, as for MXFP4, so a group's sum of products is exact in 32 bits. What llama.cpp rounds to 8
//! bits has 16 here: results are near those in f32.
//!
//! Up to [`few`] rows of activations are multiplied so, row of weights by row of weights: what
//! decoding needs. For more, a panel of weights at a time is expanded to f32 and multiplied with
//! the `gemm` crate, which then is quicker.
//!
//! [`format`](self::format) knows the formats, [`activations`] makes the integers, [`portable`] and
//! [`avx512`] multiply them with the same roundings, the same to the bit.
#![allow(clippy::indexing_slicing)]

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod format;
mod portable;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::raw::Shared;
use crate::row_panels::{self, Rows};
use crate::{Isa, KernelError, check_bytes, check_length};
use activations::Activations;
pub use format::BlockFormat;

/// Rows of activations that are multiplied in integers; more go through f32. By measurement
/// (examples/blocks.rs): with AVX-512 the two meet between 64 and 256 rows.
const fn few(isa: Isa) -> usize {
    if matches!(isa, Isa::Amx | Isa::Avx512) { 96 } else { 8 }
}

/// Rows of activations that a row of weights is multiplied with while it is unpacked.
const TILE: usize = 4;
/// Fewest rows of weights that are a task of their own.
const TASK: usize = 32;

/// A frozen matrix [rows, columns] (a linear map's weight, out × in) in a GGUF file's blocks.
/// Clones and parts share the bytes.
#[derive(Clone)]
pub struct BlockMatrix {
    format: BlockFormat,
    rows: usize,
    columns: usize,
    bytes: Arc<Vec<u8>>,
    /// The first of its rows among those of `bytes`.
    first: usize,
}

impl std::fmt::Debug for BlockMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockMatrix({:?} [{}, {}])", self.format, self.rows, self.columns)
    }
}

impl BlockMatrix {
    /// Rows of whole blocks, one after another.
    ///
    /// # Errors
    /// `columns` is not a multiple of the block's values, or `bytes` has not the length of that
    /// shape.
    pub fn new(
        format: BlockFormat,
        rows: usize,
        columns: usize,
        bytes: Vec<u8>,
    ) -> Result<Self, KernelError> {
        let values = rows.checked_mul(columns).filter(|values| values.checked_mul(4).is_some());
        values.ok_or(KernelError::TooLarge { rows, columns })?;
        // A row that is not a whole number of blocks has no length that fits.
        let row = format.row_bytes(columns).unwrap_or(usize::MAX / rows.max(1));
        check_bytes(format.name(), rows, columns, rows * row, bytes.len())?;
        Ok(Self { format, rows, columns, bytes: Arc::new(bytes), first: 0 })
    }

    /// Its block format.
    #[must_use]
    pub fn format(&self) -> BlockFormat {
        self.format
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

    /// Bytes that its rows take in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows * self.row_bytes()
    }

    /// Some of the rows, of the same bytes.
    ///
    /// # Errors
    /// Rows that it has not.
    pub fn part(&self, range: Range<usize>) -> Result<Self, KernelError> {
        if range.start > range.end || range.end > self.rows {
            let (found, expected) = (range.end, self.rows);
            return Err(KernelError::Length {
                what: "a part of the rows",
                n: 1,
                width: self.rows,
                expected,
                found,
            });
        }
        Ok(Self { rows: range.len(), first: self.first + range.start, ..self.clone() })
    }

    /// The rows in another order: row i of the result is row `order[i]` of this one. Blocks lie
    /// within rows, so nothing is decoded for it.
    ///
    /// # Errors
    /// A row that it has not.
    pub fn reordered(&self, order: &[usize]) -> Result<Self, KernelError> {
        let mut bytes = Vec::with_capacity(order.len() * self.row_bytes());
        for row in order {
            bytes.extend_from_slice(self.part(*row..row + 1)?.own());
        }
        Self::new(self.format, order.len(), self.columns, bytes)
    }

    fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.columns).unwrap_or(0)
    }

    /// The bytes of its rows.
    fn own(&self) -> &[u8] {
        let row = self.row_bytes();
        &self.bytes[self.first * row..(self.first + self.rows) * row]
    }

    fn row(&self, row: usize) -> &[u8] {
        let width = self.row_bytes();
        &self.bytes[(self.first + row) * width..][..width]
    }

    /// y = x·Wᵀ: x [n, columns], y [n, rows] (overwritten), row-major f32.
    ///
    /// # Errors
    /// A buffer's length does not fit, or `USPX_KERNEL` names a family that cannot run here.
    pub fn multiply(&self, x: &[f32], n: usize, y: &mut [f32]) -> Result<(), KernelError> {
        self.multiply_with(Isa::active()?, x, n, y)
    }

    /// [`Self::multiply`] with a kernel family of the caller's choice.
    ///
    /// # Errors
    /// A buffer's length does not fit, or the family cannot run here.
    pub fn multiply_with(
        &self,
        isa: Isa,
        x: &[f32],
        n: usize,
        y: &mut [f32],
    ) -> Result<(), KernelError> {
        let isa = isa.checked()?;
        check_length("x", n, self.columns, x.len())?;
        check_length("y", n, self.rows, y.len())?;
        match () {
            () if y.is_empty() => {}
            () if self.columns == 0 => y.fill(0.0),
            () if n > few(isa) => row_panels::multiply(self, x, n, y)?,
            () => self.multiply_few(isa, x, n, y),
        }
        Ok(())
    }

    /// By integers, whatever n is.
    fn multiply_few(&self, isa: Isa, x: &[f32], n: usize, y: &mut [f32]) {
        let activations = Activations::new(x, self.columns);
        let y = Shared(y.as_mut_ptr());
        let work = |rows: Range<usize>| {
            for token in (0..n).step_by(TILE) {
                let tokens = token..n.min(token + TILE);
                // SAFETY: y holds n rows of `self.rows` values (checked at the door); this task
                // alone writes these.
                let put = |token: usize, row: usize, value: f32| unsafe {
                    *y.get().add(token * self.rows + row) = value;
                };
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: the family is supported, as the caller has checked.
                    Isa::Amx | Isa::Avx512 => unsafe {
                        avx512::multiply(self, &activations, rows.clone(), tokens, put)
                    },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: as above.
                    Isa::Avx2 => unsafe {
                        portable::multiply_avx2(self, &activations, rows.clone(), tokens, put)
                    },
                    _ => portable::multiply(self, &activations, rows.clone(), tokens, put),
                }
            }
        };
        let threads = rayon::current_num_threads();
        let task = self.rows.div_ceil(4 * threads).max(TASK);
        if threads == 1 || task >= self.rows {
            // Handing the work to a pool of one thread would cost more than a small product does.
            return work(0..self.rows);
        }
        (0..self.rows.div_ceil(task))
            .into_par_iter()
            .for_each(|i| work(i * task..self.rows.min((i + 1) * task)));
    }

    /// g·W: g [n, rows], out [n, columns] (overwritten): the gradient with respect to x, in f32,
    /// panel by panel.
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

    /// Whether a scale or minimum is infinite or not a number.
    #[must_use]
    pub fn has_nan(&self) -> bool {
        let block = self.format.block_bytes();
        self.own()
            .chunks_exact(block)
            .any(|block| self.format.factors(block).any(|bits| bits & 0x7c00 == 0x7c00))
    }
}

impl Rows for BlockMatrix {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    fn expand_rows(&self, first: usize, out: &mut [f32]) {
        for (row, out) in out.chunks_exact_mut(self.columns.max(1)).enumerate() {
            self.format.expand(self.row(first + row), out);
        }
    }
}

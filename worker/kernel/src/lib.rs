//! Matrix products on the CPU with frozen weights as they lie in a checkpoint: bf16, and MXFP4
//! without ever expanding a matrix to 32 bits.
//!
//! | family | MXFP4 | bf16 | backward |
//! |---|---|---|---|
//! | [`Isa::Amx`] | tiles, weights exact in bf16, activations in two bf16 pieces | the same | the same |
//! | [`Isa::Avx512`], [`Isa::Avx2`], [`Isa::Neon`], [`Isa::Portable`] | int8 dot products, bit-identical | f32 panels | f32 panels |
//!
//! Where there is neither AMX nor AVX-512, MXFP4 goes through f32 panels like bf16 unless
//! `USPX_KERNEL` names an int8 family: without instructions for int8 dot products f32 is quicker,
//! and with those of AVX2 and NEON it was not measured.
//!
//! [`BlockMatrix`] holds the blocks of GGUF files, [`Nf4Matrix`] bitsandbytes' NF4, which student weights
//! are in while an adapter is trained on them.
//!
//! Beside them [`exp`], which softmax and gated units spend their time in.
//!
//! Threads are those of rayon's current pool. No result depends on their number.

mod allocator;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod amx;
mod error;
mod exp;
mod ggml;
mod int8;
mod isa;
mod nf4;
mod panels;
mod raw;
mod row_panels;
mod storage;

use std::sync::Arc;

pub use allocator::keep_freed_memory;
pub use error::KernelError;
pub use exp::{exp, exp_shifted};
pub use ggml::{BlockFormat, BlockMatrix};
pub use isa::Isa;
pub use nf4::{Nf4Matrix, Nf4Parts};
use storage::{GROUP, Storage};

/// A frozen matrix [rows, columns] (a linear map's weight, out × in) held as its checkpoint stores
/// it. Clones share the bytes.
#[derive(Clone)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    storage: Storage,
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = match self.storage {
            Storage::Bf16(_) => "bf16",
            Storage::Mxfp4 { .. } => "mxfp4",
        };
        write!(f, "Matrix({format} [{}, {}])", self.rows, self.columns)
    }
}

impl Matrix {
    /// Little-endian bf16, row-major.
    ///
    /// # Errors
    /// `bytes` is not 2·rows·columns long.
    pub fn bf16(rows: usize, columns: usize, bytes: Vec<u8>) -> Result<Self, KernelError> {
        let values = rows.checked_mul(columns).filter(|values| values.checked_mul(4).is_some());
        let values = values.ok_or(KernelError::TooLarge { rows, columns })?;
        check_bytes("bf16 values", rows, columns, values * 2, bytes.len())?;
        Ok(Self { rows, columns, storage: Storage::Bf16(Arc::new(bytes)) })
    }

    /// MXFP4: blocks [rows, columns/32, 16] (two values a byte, low nibble first), scales [rows,
    /// columns/32] (value 2^(byte − 127)).
    ///
    /// # Errors
    /// `columns` is not a multiple of 32, or a buffer's length does not fit.
    pub fn mxfp4(
        rows: usize,
        columns: usize,
        blocks: Vec<u8>,
        scales: Vec<u8>,
    ) -> Result<Self, KernelError> {
        if !columns.is_multiple_of(GROUP) {
            return Err(KernelError::Columns { columns });
        }
        let values = rows.checked_mul(columns).filter(|values| values.checked_mul(4).is_some());
        let values = values.ok_or(KernelError::TooLarge { rows, columns })?;
        check_bytes("MXFP4 blocks", rows, columns, values / 2, blocks.len())?;
        check_bytes("MXFP4 scales", rows, columns, values / GROUP, scales.len())?;
        Ok(Self {
            rows,
            columns,
            storage: Storage::Mxfp4 { blocks: Arc::new(blocks), scales: Arc::new(scales) },
        })
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

    /// Bytes that the weights take in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Bf16(bytes) => bytes.len(),
            Storage::Mxfp4 { blocks, scales } => blocks.len() + scales.len(),
        }
    }

    /// y = x·Wᵀ: x [n, columns], y [n, rows] (overwritten), row-major f32.
    ///
    /// # Errors
    /// A buffer's length does not fit, or `USPX_KERNEL` names a family that cannot run here.
    pub fn multiply(&self, x: &[f32], n: usize, y: &mut [f32]) -> Result<(), KernelError> {
        let isa = Isa::active()?;
        if isa == Isa::Amx || Isa::int8()? {
            return self.multiply_with(isa, x, n, y);
        }
        self.multiply_f32(x, n, y)
    }

    /// The product in f32 on every machine: the weights are expanded panel by panel.
    ///
    /// # Errors
    /// A buffer's length does not fit.
    pub fn multiply_f32(&self, x: &[f32], n: usize, y: &mut [f32]) -> Result<(), KernelError> {
        check_length("x", n, self.columns, x.len())?;
        check_length("y", n, self.rows, y.len())?;
        if self.columns == 0 {
            y.fill(0.0);
        } else if !y.is_empty() {
            panels::multiply(&self.storage, self.rows, self.columns, x, n, y);
        }
        Ok(())
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
        if y.is_empty() {
            return Ok(());
        }
        if self.columns == 0 {
            y.fill(0.0);
            return Ok(());
        }
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        if isa == Isa::Amx {
            let product = amx::Product { weights: &self.storage, shape: [self.rows, self.columns] };
            // SAFETY: AMX is supported (checked above), the lengths are right and not zero.
            unsafe { product.run::<false>(x, n, y) };
            return Ok(());
        }
        match &self.storage {
            Storage::Mxfp4 { blocks, scales } => {
                int8::multiply(isa, (blocks, scales), [self.rows, self.columns], x, n, y);
            }
            bf16 @ Storage::Bf16(_) => panels::multiply(bf16, self.rows, self.columns, x, n, y),
        }
        Ok(())
    }

    /// g·W: g [n, rows], out [n, columns] (overwritten): the gradient with respect to x. Panel by
    /// panel, W never expanded whole.
    ///
    /// # Errors
    /// A buffer's length does not fit, or `USPX_KERNEL` names a family that cannot run here.
    pub fn multiply_transposed(
        &self,
        g: &[f32],
        n: usize,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        self.multiply_transposed_with(Isa::active()?, g, n, out)
    }

    /// [`Self::multiply_transposed`] with a kernel family of the caller's choice.
    ///
    /// # Errors
    /// A buffer's length does not fit, or the family cannot run here.
    pub fn multiply_transposed_with(
        &self,
        isa: Isa,
        g: &[f32],
        n: usize,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let isa = isa.checked()?;
        check_length("g", n, self.rows, g.len())?;
        check_length("out", n, self.columns, out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        if self.rows == 0 {
            out.fill(0.0);
            return Ok(());
        }
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        if isa == Isa::Amx {
            let product = amx::Product { weights: &self.storage, shape: [self.rows, self.columns] };
            // SAFETY: AMX is supported (checked above), the lengths are right and not zero.
            unsafe { product.run::<true>(g, n, out) };
            return Ok(());
        }
        let _ = isa;
        panels::multiply_transposed(&self.storage, self.rows, self.columns, g, n, out);
        Ok(())
    }

    /// All values as f32, row-major.
    #[must_use]
    pub fn expand(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.columns];
        for (row, out) in values.chunks_exact_mut(self.columns.max(1)).enumerate() {
            self.storage.row(self.columns, row, 0, out);
        }
        values
    }

    /// True where a value is NaN or infinite (bf16), or a scale byte is 255 (MXFP4: NaN by the OCP
    /// MX specification).
    #[must_use]
    pub fn has_nan(&self) -> bool {
        match &self.storage {
            // The high byte of a little-endian bf16 and the top bit of the low one hold the
            // exponent: all ones is not finite.
            Storage::Bf16(bytes) => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .any(|pair| u16::from_le_bytes(*pair) & 0x7f80 == 0x7f80),
            Storage::Mxfp4 { scales, .. } => scales.contains(&255),
        }
    }
}

/// Refuses a weight buffer of the wrong length.
fn check_bytes(
    what: &'static str,
    rows: usize,
    columns: usize,
    expected: usize,
    found: usize,
) -> Result<(), KernelError> {
    if expected == found {
        Ok(())
    } else {
        Err(KernelError::Bytes { what, rows, columns, expected, found })
    }
}

/// Refuses an activation buffer of the wrong length.
fn check_length(
    what: &'static str,
    n: usize,
    width: usize,
    found: usize,
) -> Result<(), KernelError> {
    // A product beyond the address space equals no slice's length.
    let expected = n.saturating_mul(width);
    if expected == found {
        Ok(())
    } else {
        Err(KernelError::Length { what, n, width, expected, found })
    }
}

//! How a checkpoint's bytes become numbers: bf16, and MXFP4 of the OCP MX specification 1.0 (E2M1
//! values in groups of 32 under one E8M0 scale).
//!
//! Indexing: callers stay within `rows` and `columns`; the buffers' lengths are checked when a
//! [`crate::Matrix`] is made.
#![allow(clippy::indexing_slicing)]

use std::sync::Arc;

/// Values under one MXFP4 scale.
pub(crate) const GROUP: usize = 32;
/// Bytes of one MXFP4 group's values.
pub(crate) const GROUP_BYTES: usize = GROUP / 2;

/// The sixteen E2M1 values, doubled: small integers.
pub(crate) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The sixteen E2M1 values. Code 8 is minus zero.
const VALUES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The bytes of a matrix; cheap to clone.
#[derive(Clone)]
pub(crate) enum Storage {
    /// Little-endian bf16, row-major.
    Bf16(Arc<Vec<u8>>),
    /// MXFP4: `blocks` [rows, columns/32, 16], low nibble first; `scales` [rows, columns/32].
    Mxfp4 {
        /// Two values a byte.
        blocks: Arc<Vec<u8>>,
        /// 2^(byte − 127); 255 is NaN.
        scales: Arc<Vec<u8>>,
    },
}

/// A group's scale 2^(byte − 127), NaN for 255.
pub(crate) fn scale(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(byte) << 23),
    }
}

/// Half of [`scale`], exactly: what a doubled value is worth.
pub(crate) fn half_scale(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 21),
        1 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits((u32::from(byte) - 1) << 23),
    }
}

impl Storage {
    /// Values of one row from column `first` on, as many as `out` holds. MXFP4: `first` must be a
    /// multiple of 32.
    pub(crate) fn row(&self, columns: usize, row: usize, first: usize, out: &mut [f32]) {
        match self {
            Storage::Bf16(bytes) => {
                let bytes = &bytes[(row * columns + first) * 2..][..out.len() * 2];
                for (value, pair) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f32::from_bits(u32::from(u16::from_le_bytes(*pair)) << 16);
                }
            }
            Storage::Mxfp4 { blocks, scales } => {
                let start = (row * columns + first) / GROUP;
                for (i, group) in out.chunks_mut(GROUP).enumerate() {
                    let scale = scale(scales[start + i]);
                    let bytes = &blocks[(start + i) * GROUP_BYTES..][..GROUP_BYTES];
                    for (pair, byte) in group.chunks_mut(2).zip(bytes) {
                        pair[0] = VALUES[usize::from(byte & 15)] * scale;
                        if let Some(high) = pair.get_mut(1) {
                            *high = VALUES[usize::from(byte >> 4)] * scale;
                        }
                    }
                }
            }
        }
    }
}

/// For each scale byte the sixteen E2M1 values times that scale, as bf16 bits: exact, for a product
/// has two significant bits. (Products beyond 2^128 are infinite.)
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn bf16_tables() -> &'static [[u16; 16]; 256] {
    static TABLES: std::sync::OnceLock<Box<[[u16; 16]; 256]>> = std::sync::OnceLock::new();
    TABLES.get_or_init(|| {
        let mut tables = Box::new([[0; 16]; 256]);
        for (byte, table) in (0..=255).zip(tables.iter_mut()) {
            *table = VALUES.map(|value| ((value * scale(byte)).to_bits() >> 16) as u16);
        }
        tables
    })
}

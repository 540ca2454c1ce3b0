//! The int8 kernel on AVX2: a 256-bit register holds a quad of 8 rows; with AVX-VNNI where the
//! processor has it.
#![allow(clippy::indexing_slicing)]

use std::arch::x86_64::*;

use super::{Activations, Panel, QUADS, Weights};
use crate::storage::{DOUBLED, GROUP_BYTES, half_scale};

/// Rows of a panel: two registers.
const ROWS: usize = 16;
/// Tokens at a time: 2 × 2 sums of each kind fit the 16 registers.
const TOKENS: usize = 2;

/// The kernel, with `$piece`(sums, activation quads, weight quads) for the integer products of one
/// byte.
macro_rules! kernel {
    ($name:ident, $features:literal, $piece:ident, $doc:literal) => {
        #[doc = $doc]
        #[target_feature(enable = $features)]
        pub(super) fn $name(
            weights: &[Weights<ROWS>],
            activations: &Activations,
            tokens: [usize; TOKENS],
        ) -> [[f32; ROWS]; TOKENS] {
            let groups = activations.groups;
            assert!(weights.len() == groups);
            let rows = tokens.map(|token| &activations.values[token * groups..][..groups]);
            let scales = tokens.map(|token| &activations.scales[token * groups..][..groups]);
            let mut out = [[_mm256_setzero_ps(); 2]; TOKENS];
            for (group, w) in weights.iter().enumerate() {
                let mut sums = [pair(w.correction.as_ptr()); TOKENS];
                for (i, x) in rows[0][group].iter().zip(&rows[1][group]).enumerate() {
                    if i > 0 {
                        for sum in sums.as_flattened_mut() {
                            *sum = _mm256_slli_epi32::<8>(*sum);
                        }
                    }
                    $piece(&mut sums, x.into(), &w.quads);
                }
                let w = pair(w.scales.as_ptr().cast());
                for ((out, sums), scales) in out.iter_mut().zip(sums).zip(scales) {
                    let scale = _mm256_set1_ps(scales[group]);
                    for v in 0..2 {
                        let product = _mm256_mul_ps(
                            _mm256_cvtepi32_ps(sums[v]),
                            _mm256_mul_ps(_mm256_castsi256_ps(w[v]), scale),
                        );
                        out[v] = _mm256_add_ps(out[v], product);
                    }
                }
            }
            // SAFETY: registers and rows of floats have the same size.
            unsafe { std::mem::transmute::<[[__m256; 2]; TOKENS], [[f32; ROWS]; TOKENS]>(out) }
        }
    };
}

kernel!(dot, "avx2", piece, "Products of one panel with [`TOKENS`] tokens.");
kernel!(dot_vnni, "avx2,avxvnni", piece_vnni, "[`dot`] with AVX-VNNI.");

/// Two registers of a panel's array.
#[target_feature(enable = "avx2")]
fn pair(array: *const i32) -> [__m256i; 2] {
    // SAFETY: every array that is given is 16 values of 32 bits.
    unsafe { [_mm256_loadu_si256(array.cast()), _mm256_loadu_si256(array.add(8).cast())] }
}

/// Adds one byte's products: pairs are summed in 16 bits, four quads at a time (at most 4·2·12·255
/// = 24480).
#[target_feature(enable = "avx2")]
fn piece(
    sums: &mut [[__m256i; 2]; TOKENS],
    x: [&[[u8; 4]; QUADS]; TOKENS],
    w: &[[[i8; 4]; ROWS]; QUADS],
) {
    let ones = _mm256_set1_epi16(1);
    for four in [0, 4] {
        let mut partial = [[_mm256_setzero_si256(); 2]; TOKENS];
        for q in four..four + 4 {
            let w = pair(w[q].as_ptr().cast());
            for (partial, x) in partial.iter_mut().zip(x) {
                let x = _mm256_set1_epi32(i32::from_le_bytes(x[q]));
                for v in 0..2 {
                    partial[v] = _mm256_add_epi16(partial[v], _mm256_maddubs_epi16(x, w[v]));
                }
            }
        }
        for (sums, partial) in sums.iter_mut().zip(partial) {
            for v in 0..2 {
                sums[v] = _mm256_add_epi32(sums[v], _mm256_madd_epi16(partial[v], ones));
            }
        }
    }
}

/// [`piece`] with AVX-VNNI.
#[target_feature(enable = "avx2,avxvnni")]
fn piece_vnni(
    sums: &mut [[__m256i; 2]; TOKENS],
    x: [&[[u8; 4]; QUADS]; TOKENS],
    w: &[[[i8; 4]; ROWS]; QUADS],
) {
    for q in 0..QUADS {
        let w = pair(w[q].as_ptr().cast());
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = _mm256_set1_epi32(i32::from_le_bytes(x[q]));
            *sums = [
                _mm256_dpbusd_avx_epi32(sums[0], x, w[0]),
                _mm256_dpbusd_avx_epi32(sums[1], x, w[1]),
            ];
        }
    }
}

/// Expands a panel of up to 16 rows; rows beyond it keep what they had (their results are dropped).
#[target_feature(enable = "avx2")]
pub(super) fn expand((blocks, scales): Panel<'_>, groups: usize, out: &mut [Weights<ROWS>]) {
    let rows = scales.len() / groups;
    assert!(rows <= ROWS && blocks.len() == rows * groups * GROUP_BYTES && out.len() == groups);
    let table = DOUBLED;
    // SAFETY: the table is 16 bytes.
    let table = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) });
    let (ones, wide_ones, nibble) =
        (_mm256_set1_epi8(1), _mm256_set1_epi16(1), _mm256_set1_epi8(15));
    for (group, out) in out.iter_mut().enumerate() {
        for first in (0..rows).step_by(8) {
            let mut bytes = [_mm_setzero_si128(); 8];
            for (i, bytes) in bytes.iter_mut().enumerate() {
                let row = (first + i).min(rows - 1);
                // SAFETY: row < rows and group < groups.
                *bytes = unsafe {
                    _mm_loadu_si128(
                        blocks.as_ptr().add((row * groups + group) * GROUP_BYTES).cast(),
                    )
                };
            }
            let mut sum = _mm256_setzero_si256();
            for (d, bytes) in transpose(bytes).into_iter().enumerate() {
                let even = _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, nibble));
                let odd = _mm256_shuffle_epi8(
                    table,
                    _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble),
                );
                // 16-bit sums of at most 4·4·12.
                let both = _mm256_add_epi16(
                    _mm256_maddubs_epi16(ones, even),
                    _mm256_maddubs_epi16(ones, odd),
                );
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(both, wide_ones));
                // SAFETY: 8 quads from row `first` (0 or 8) on.
                unsafe {
                    _mm256_storeu_si256(out.quads[2 * d].as_mut_ptr().add(first).cast(), even);
                    _mm256_storeu_si256(out.quads[2 * d + 1].as_mut_ptr().add(first).cast(), odd);
                }
            }
            let correction = _mm256_mullo_epi32(sum, _mm256_set1_epi32(-128));
            // SAFETY: 8 integers from row `first` (0 or 8) on.
            unsafe {
                _mm256_storeu_si256(out.correction.as_mut_ptr().add(first).cast(), correction)
            };
        }
        for (row, scale) in out.scales.iter_mut().enumerate().take(rows) {
            *scale = half_scale(scales[row * groups + group]);
        }
    }
}

/// 8 rows of 4 × 32 bits become 4 rows of 8 × 32 bits.
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m128i; 8]) -> [__m256i; 4] {
    let mut v = [_mm256_setzero_si256(); 4];
    for (i, v) in v.iter_mut().enumerate() {
        *v = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(rows[i]), rows[4 + i]);
    }
    let (a, b) = (_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
    let (c, d) = (_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
    [
        _mm256_unpacklo_epi64(a, c),
        _mm256_unpackhi_epi64(a, c),
        _mm256_unpacklo_epi64(b, d),
        _mm256_unpackhi_epi64(b, d),
    ]
}

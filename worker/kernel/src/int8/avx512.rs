//! The int8 kernel on AVX-512 VNNI: a 512-bit register holds a quad of 16 rows.
#![allow(clippy::indexing_slicing)]

use std::arch::x86_64::*;

use super::{Activations, PIECES, Panel, QUADS, Weights};
use crate::storage::{DOUBLED, GROUP_BYTES, half_scale};

/// Rows of a panel: two registers.
const ROWS: usize = 32;
/// Tokens at a time: 2 × 6 integer sums and as many f32 sums fill 24 of 32 registers.
const TOKENS: usize = 6;

/// Products of one panel with [`TOKENS`] tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn dot(
    weights: &[Weights<ROWS>],
    activations: &Activations,
    tokens: [usize; TOKENS],
) -> [[f32; ROWS]; TOKENS] {
    let groups = activations.groups;
    assert!(weights.len() == groups);
    let rows = tokens.map(|token| &activations.values[token * groups..][..groups]);
    let scales = tokens.map(|token| &activations.scales[token * groups..][..groups]);
    let mut out = [[_mm512_setzero_ps(); 2]; TOKENS];
    for (group, w) in weights.iter().enumerate() {
        let mut sums = [pair(w.correction.as_ptr()); TOKENS];
        for piece in 0..PIECES {
            if piece > 0 {
                for sum in sums.as_flattened_mut() {
                    *sum = _mm512_slli_epi32::<8>(*sum);
                }
            }
            for q in 0..QUADS {
                let w = pair(w.quads[q].as_ptr().cast());
                for (sums, row) in sums.iter_mut().zip(rows) {
                    // SAFETY: the slices hold `groups` groups (above).
                    let x = unsafe { row.get_unchecked(group) };
                    let x = _mm512_set1_epi32(i32::from_le_bytes(x[piece][q]));
                    *sums = [
                        _mm512_dpbusd_epi32(sums[0], x, w[0]),
                        _mm512_dpbusd_epi32(sums[1], x, w[1]),
                    ];
                }
            }
        }
        let w = pair(w.scales.as_ptr().cast());
        for ((out, sums), scales) in out.iter_mut().zip(sums).zip(scales) {
            // SAFETY: as above.
            let scale = _mm512_set1_ps(unsafe { *scales.get_unchecked(group) });
            for v in 0..2 {
                let product = _mm512_mul_ps(
                    _mm512_cvtepi32_ps(sums[v]),
                    _mm512_mul_ps(_mm512_castsi512_ps(w[v]), scale),
                );
                out[v] = _mm512_add_ps(out[v], product);
            }
        }
    }
    // SAFETY: registers and rows of floats have the same size.
    unsafe { std::mem::transmute::<[[__m512; 2]; TOKENS], [[f32; ROWS]; TOKENS]>(out) }
}

/// Two registers of a panel's array.
#[target_feature(enable = "avx512f")]
fn pair(array: *const i32) -> [__m512i; 2] {
    // SAFETY: every array that is given is 32 values of 32 bits.
    unsafe { [_mm512_loadu_si512(array.cast()), _mm512_loadu_si512(array.add(16).cast())] }
}

/// Expands a panel of up to 32 rows; rows beyond it keep what they had (their results are dropped).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn expand((blocks, scales): Panel<'_>, groups: usize, out: &mut [Weights<ROWS>]) {
    let rows = scales.len() / groups;
    assert!(rows <= ROWS && blocks.len() == rows * groups * GROUP_BYTES && out.len() == groups);
    let table = DOUBLED;
    // SAFETY: the table is 16 bytes.
    let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) });
    let ones = _mm512_set1_epi8(1);
    let nibble = _mm512_set1_epi8(15);
    for (group, out) in out.iter_mut().enumerate() {
        for first in (0..rows).step_by(16) {
            let mut bytes = [_mm_setzero_si128(); 16];
            for (i, bytes) in bytes.iter_mut().enumerate() {
                let row = (first + i).min(rows - 1);
                // SAFETY: row < rows and group < groups.
                *bytes = unsafe {
                    _mm_loadu_si128(
                        blocks.as_ptr().add((row * groups + group) * GROUP_BYTES).cast(),
                    )
                };
            }
            let mut sum = _mm512_setzero_si512();
            for (d, bytes) in transpose(bytes).into_iter().enumerate() {
                let even = _mm512_shuffle_epi8(table, _mm512_and_si512(bytes, nibble));
                let odd = _mm512_shuffle_epi8(
                    table,
                    _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble),
                );
                sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, ones, even), ones, odd);
                // SAFETY: 16 quads from row `first` (0 or 16) on.
                unsafe {
                    _mm512_storeu_si512(out.quads[2 * d].as_mut_ptr().add(first).cast(), even);
                    _mm512_storeu_si512(out.quads[2 * d + 1].as_mut_ptr().add(first).cast(), odd);
                }
            }
            let correction = _mm512_mullo_epi32(sum, _mm512_set1_epi32(-128));
            // SAFETY: 16 integers from row `first` (0 or 16) on.
            unsafe {
                _mm512_storeu_si512(out.correction.as_mut_ptr().add(first).cast(), correction)
            };
        }
        for (row, scale) in out.scales.iter_mut().enumerate().take(rows) {
            *scale = half_scale(scales[row * groups + group]);
        }
    }
}

/// 16 rows of 4 × 32 bits become 4 rows of 16 × 32 bits.
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m128i; 16]) -> [__m512i; 4] {
    // Lane l of vector i holds row 4l + i, so that the 4 × 4 transposes within lanes leave rows in
    // order.
    let mut v = [_mm512_setzero_si512(); 4];
    for (i, v) in v.iter_mut().enumerate() {
        let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(rows[i]), rows[4 + i]);
        let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(rows[8 + i]), rows[12 + i]);
        *v = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    }
    let (a, b) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let (c, d) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    [
        _mm512_unpacklo_epi64(a, c),
        _mm512_unpackhi_epi64(a, c),
        _mm512_unpacklo_epi64(b, d),
        _mm512_unpackhi_epi64(b, d),
    ]
}

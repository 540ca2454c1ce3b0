//! The int8 kernel on NEON: a 128-bit register holds a quad of 4 rows.
//!
//! NEON's products are signed × signed, so all activation bytes are moved down by 128: the highest
//! is then what it stands for, and the share of the others is put back with the panel's correction.
#![allow(clippy::indexing_slicing)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Activations, QUADS, Weights};

/// Rows of a panel: two registers.
const ROWS: usize = 8;
/// Tokens at a time.
const TOKENS: usize = 4;

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
            let mut out = [[vdupq_n_f32(0.0); 2]; TOKENS];
            for (group, w) in weights.iter().enumerate() {
                // SAFETY: 2 × 4 values.
                let (correction, scales) = unsafe {
                    (
                        [vld1q_s32(w.correction.as_ptr()), vld1q_s32(w.correction.as_ptr().add(4))],
                        [vld1q_f32(w.scales.as_ptr()), vld1q_f32(w.scales.as_ptr().add(4))],
                    )
                };
                for (out, token) in out.iter_mut().zip(tokens) {
                    let x = &activations.values[token * groups + group];
                    let mut sums = $piece([vdupq_n_s32(0); 2], &x[0], &w.quads);
                    for x in &x[1..] {
                        for v in 0..2 {
                            sums[v] = vsubq_s32(vshlq_n_s32::<8>(sums[v]), correction[v]);
                        }
                        sums = $piece(sums, x, &w.quads);
                    }
                    let scale = vdupq_n_f32(activations.scales[token * groups + group]);
                    for v in 0..2 {
                        let product =
                            vmulq_f32(vcvtq_f32_s32(sums[v]), vmulq_f32(scales[v], scale));
                        out[v] = vaddq_f32(out[v], product);
                    }
                }
            }
            // SAFETY: registers and rows of floats have the same size.
            unsafe { std::mem::transmute::<[[float32x4_t; 2]; TOKENS], [[f32; ROWS]; TOKENS]>(out) }
        }
    };
}

kernel!(dot, "neon", piece, "Products of one panel with [`TOKENS`] tokens.");
kernel!(dot_product, "neon,dotprod", piece_dot_product, "[`dot`] with the dot product extension.");

/// A quad of activations less 128, in every lane.
#[target_feature(enable = "neon")]
fn signed(quad: [u8; 4]) -> int8x16_t {
    vreinterpretq_s8_u32(vdupq_n_u32(u32::from_le_bytes(quad) ^ 0x8080_8080))
}

/// Two registers of weights.
#[target_feature(enable = "neon")]
fn pair(quad: &[[i8; 4]; ROWS]) -> [int8x16_t; 2] {
    let start: *const i8 = quad.as_ptr().cast();
    // SAFETY: 8 × 4 bytes.
    unsafe { [vld1q_s8(start), vld1q_s8(start.add(16))] }
}

/// Adds one byte's products. 16-bit sums hold all 8 quads: at most 8·12·128 = 12288.
#[target_feature(enable = "neon")]
fn piece(
    mut sums: [int32x4_t; 2],
    x: &[[u8; 4]; QUADS],
    w: &[[[i8; 4]; ROWS]; QUADS],
) -> [int32x4_t; 2] {
    let mut partial = [[vdupq_n_s16(0); 2]; 2];
    for (x, w) in x.iter().zip(w) {
        let x = signed(*x);
        for (partial, w) in partial.iter_mut().zip(pair(w)) {
            partial[0] = vmlal_s8(partial[0], vget_low_s8(w), vget_low_s8(x));
            partial[1] = vmlal_high_s8(partial[1], w, x);
        }
    }
    for (sum, partial) in sums.iter_mut().zip(partial) {
        *sum = vaddq_s32(*sum, vpaddq_s32(vpaddlq_s16(partial[0]), vpaddlq_s16(partial[1])));
    }
    sums
}

/// [`piece`] with `sdot`, whose intrinsic is not stable yet.
#[target_feature(enable = "neon,dotprod")]
fn piece_dot_product(
    mut sums: [int32x4_t; 2],
    x: &[[u8; 4]; QUADS],
    w: &[[[i8; 4]; ROWS]; QUADS],
) -> [int32x4_t; 2] {
    for (x, w) in x.iter().zip(w) {
        let x = signed(*x);
        for (sum, w) in sums.iter_mut().zip(pair(w)) {
            // SAFETY: registers only, and the processor has the extension.
            unsafe {
                asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) *sum, in(vreg) w, in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
    }
    sums
}

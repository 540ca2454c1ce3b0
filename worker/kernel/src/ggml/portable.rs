//! The integer products in plain Rust: the reference of the other kernels, and, compiled for AVX2,
//! a kernel itself.
//!
//! All kernels make the same roundings: a group's sum of integers is exact; it is multiplied by
//! (weight scale × activation scale), the minimum's share is subtracted, and the result added to
//! the group's lane, 256 weights after 256; at the end the 16 lanes are added pairwise.
#![allow(clippy::indexing_slicing)]

use std::ops::Range;

use super::activations::{Activations, Integers};
use super::format::{GROUPS, Super, lane};
use super::{BlockFormat, BlockMatrix, TILE};

/// Products of some rows of the weights with some tokens (at most [`TILE`]); `put` takes token, row
/// and result.
pub(super) fn multiply(
    weights: &BlockMatrix,
    activations: &Activations,
    rows: Range<usize>,
    tokens: Range<usize>,
    put: impl Fn(usize, usize, f32),
) {
    every(weights, activations, rows, tokens, put);
}

/// The same, compiled for AVX2.
///
/// # Safety
/// The processor must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn multiply_avx2(
    weights: &BlockMatrix,
    activations: &Activations,
    rows: Range<usize>,
    tokens: Range<usize>,
    put: impl Fn(usize, usize, f32),
) {
    every(weights, activations, rows, tokens, put);
}

#[inline(always)]
fn every(
    weights: &BlockMatrix,
    activations: &Activations,
    rows: Range<usize>,
    tokens: Range<usize>,
    put: impl Fn(usize, usize, f32),
) {
    // Each format has a loop of its own, so that none asks in the middle which it is.
    match weights.format {
        f @ BlockFormat::Q4_0 => of_format(f, weights, activations, rows, tokens, put),
        f @ BlockFormat::Q8_0 => of_format(f, weights, activations, rows, tokens, put),
        f @ BlockFormat::Q4K => of_format(f, weights, activations, rows, tokens, put),
        f @ BlockFormat::Q5K => of_format(f, weights, activations, rows, tokens, put),
        f @ BlockFormat::Q6K => of_format(f, weights, activations, rows, tokens, put),
    }
}

#[inline(always)]
fn of_format(
    format: BlockFormat,
    weights: &BlockMatrix,
    activations: &Activations,
    rows: Range<usize>,
    tokens: Range<usize>,
    put: impl Fn(usize, usize, f32),
) {
    let mut unpacked = Super::ZERO;
    for row in rows {
        let mut lanes = [[0.0; GROUPS]; TILE];
        format.each(weights.row(row), |at, bytes| {
            format.unpack(bytes, &mut unpacked);
            for (lanes, token) in lanes.iter_mut().zip(tokens.clone()) {
                add(&unpacked, &activations.row(token)[at], format.offset(), lanes);
            }
        });
        for (lanes, token) in lanes.into_iter().zip(tokens.clone()) {
            put(token, row, sum(lanes));
        }
    }
}

/// Adds the products of 256 weights and activations to the lanes.
#[inline(always)]
fn add(w: &Super, x: &Integers, offset: i32, lanes: &mut [f32; GROUPS]) {
    let mut sums = [0; GROUPS];
    for (group, (codes, whole)) in
        w.codes.as_chunks::<16>().0.iter().zip(x.whole.as_chunks::<16>().0).enumerate()
    {
        sums[lane(group)] =
            codes.iter().zip(whole).map(|(c, q)| i32::from(*c) * i32::from(*q)).sum::<i32>();
    }
    for l in 0..GROUPS {
        let product = (sums[l] - offset * x.sums[l]) as f32 * (w.scales[l] * x.scales[l]);
        lanes[l] += product - w.minima[l] * x.values[l];
    }
}

/// The lanes' sum, pairwise.
pub(super) fn sum(mut lanes: [f32; GROUPS]) -> f32 {
    for width in [8, 4, 2, 1] {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
    }
    lanes[0]
}

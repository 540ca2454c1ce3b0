//! MXFP4 products by int8 dot products, the same to the bit on every processor.
//!
//! An E2M1 value doubled is an integer of at most 12, exact in 8 bits. The activations of a group
//! of 32 get one scale s and become integers q = round(x/s), |q| < 2²², held as three bytes: q +
//! 2²³ = 2¹⁶·high + 2⁸·middle + low. The bytes' products with the weights are summed one after
//! another (Horner),
//!
//!   Σ w·q = 2⁸·(2⁸·(Σ w·high − 128·Σ w) + Σ w·middle) + Σ w·low,   |Σ w·q| ≤ 32·12·2²² < 2³¹,
//!
//! in 32 bits that may wrap on the way: the end fits, so it is exact. It is rounded to f32,
//! multiplied by (weight scale × activation scale) and added to the output's f32 sum, group after
//! group, with a separate multiplication and addition: every kernel does these same roundings.
//!
//! Error: x is off by at most s = max|x| of its group / 4194303. Two bytes would be faster by a
//! third, but 15 bits of the largest are too few where a group has an outlier: they moved a trained
//! model's loss by 1e-4. A group with an infinite or NaN activation gives NaN; one whose
//! activations are all below 2^−100 counts as zero.
//!
//! Layout: `quads` of four values that a 32-bit lane multiplies at once. Packed weights hold two
//! values a byte, so a quad takes the even or the odd values of eight: quad 2d + p holds values 8d
//! + p + {0, 2, 4, 6}.
#![allow(clippy::indexing_slicing)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use rayon::prelude::*;

use crate::Isa;
use crate::raw::{Shared, for_each};
use crate::storage::{DOUBLED, GROUP, GROUP_BYTES, half_scale};

/// Quads of a group.
const QUADS: usize = GROUP / 4;
/// Bytes of an activation's integer.
const PIECES: usize = 3;
/// Largest magnitude of an activation's integer.
const LARGEST: f32 = 4_194_303.0;
/// Groups below this count as zero (their scale's reciprocal would overflow).
const SMALLEST: f32 = f32::from_bits(27 << 23);
/// Groups of activations that one task packs.
const PART: usize = 1024;
/// Outputs that one task computes.
const TASK: usize = 128;

/// Activations of one group: quads of the highest bytes, then of the next.
type Group = [[[u8; 4]; QUADS]; PIECES];

/// The activations of all tokens, [tokens, groups].
struct Activations {
    groups: usize,
    values: Vec<Group>,
    /// What one step is worth; NaN for a group with a value that is not finite.
    scales: Vec<f32>,
}

/// One group of `ROWS` rows of weights.
#[repr(C, align(64))]
struct Weights<const ROWS: usize> {
    /// Doubled values.
    quads: [[[i8; 4]; ROWS]; QUADS],
    /// −128·Σ of the doubled values.
    correction: [i32; ROWS],
    /// Half the scale, for the values are doubled.
    scales: [f32; ROWS],
}

impl<const ROWS: usize> Weights<ROWS> {
    const ZERO: Self =
        Self { quads: [[[0; 4]; ROWS]; QUADS], correction: [0; ROWS], scales: [0.0; ROWS] };
}

/// y = x·Wᵀ for MXFP4 weights: x [n, columns], y [n, rows]. All lengths are checked at the door,
/// none is zero.
pub(crate) fn multiply(
    isa: Isa,
    weights: (&[u8], &[u8]),
    shape: [usize; 2],
    x: &[f32],
    n: usize,
    y: &mut [f32],
) {
    let activations = pack(x, shape[1] / GROUP);
    let product = Product { weights, rows: shape[0], activations: &activations, tokens: n };
    // SAFETY (all of them): the family is supported, as the caller has checked.
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512 => {
            product.run(
                y,
                |w, a, out| unsafe { avx512::expand(w, a, out) },
                |w, a, t| unsafe { avx512::dot(w, a, t) },
            );
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if is_x86_feature_detected!("avxvnni") => {
            product.run(
                y,
                |w, r, out| unsafe { avx2::expand(w, r, out) },
                |w, a, t| unsafe { avx2::dot_vnni(w, a, t) },
            );
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            product.run(
                y,
                |w, r, out| unsafe { avx2::expand(w, r, out) },
                |w, a, t| unsafe { avx2::dot(w, a, t) },
            );
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if std::arch::is_aarch64_feature_detected!("dotprod") => {
            product.run(y, expand, |w, a, t| unsafe { neon::dot_product(w, a, t) });
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => product.run(y, expand, |w, a, t| unsafe { neon::dot(w, a, t) }),
        _ => product.run(y, expand, portable::dot),
    }
}

/// Blocks and scales of one panel: [rows, groups, 16] and [rows, groups].
type Panel<'a> = (&'a [u8], &'a [u8]);

/// One product.
struct Product<'a> {
    weights: (&'a [u8], &'a [u8]),
    rows: usize,
    activations: &'a Activations,
    tokens: usize,
}

impl Product<'_> {
    /// Panels of `ROWS` rows, spread over the threads: each is expanded once by `expand`(panel,
    /// groups, out) and multiplied with `TOKENS` tokens at a time by `dot`(weights, activations,
    /// tokens). Of the tokens given to `dot` the last may stand there several times.
    fn run<const ROWS: usize, const TOKENS: usize>(
        &self,
        y: &mut [f32],
        expand: impl Fn(Panel<'_>, usize, &mut [Weights<ROWS>]) + Sync + Send,
        dot: impl Fn(&[Weights<ROWS>], &Activations, [usize; TOKENS]) -> [[f32; ROWS]; TOKENS]
        + Sync
        + Send,
    ) {
        let groups = self.activations.groups;
        let y = Shared(y.as_mut_ptr());
        let task = |index: usize| {
            let mut weights: Vec<Weights<ROWS>> =
                std::iter::repeat_with(|| Weights::ZERO).take(groups).collect();
            let end = self.rows.min((index + 1) * TASK);
            for first in (index * TASK..end).step_by(ROWS) {
                let count = ROWS.min(end - first);
                let panel = (
                    &self.weights.0
                        [first * groups * GROUP_BYTES..(first + count) * groups * GROUP_BYTES],
                    &self.weights.1[first * groups..(first + count) * groups],
                );
                expand(panel, groups, &mut weights);
                for token in (0..self.tokens).step_by(TOKENS) {
                    let tokens = std::array::from_fn(|i| (token + i).min(self.tokens - 1));
                    let results = dot(&weights, self.activations, tokens);
                    for (i, result) in results.iter().enumerate().take(self.tokens - token) {
                        // SAFETY: y holds a row of `rows` values for every token; this task alone
                        // writes these outputs.
                        unsafe {
                            let at = y.get().add((token + i) * self.rows + first);
                            std::ptr::copy_nonoverlapping(result.as_ptr(), at, count);
                        }
                    }
                }
            }
        };
        for_each(self.rows.div_ceil(TASK), task);
    }
}

/// Turns the activations x [tokens, 32·groups] into integers.
fn pack(x: &[f32], groups: usize) -> Activations {
    let mut values = vec![[[[0; 4]; QUADS]; PIECES]; x.len() / GROUP];
    let mut scales = vec![0.0; x.len() / GROUP];
    let (chunks, _) = x.as_chunks::<GROUP>();
    if chunks.len() <= PART || rayon::current_num_threads() == 1 {
        pack_groups(chunks, &mut values, &mut scales);
    } else {
        let outputs = values.par_chunks_mut(PART).zip(scales.par_chunks_mut(PART));
        chunks
            .par_chunks(PART)
            .zip(outputs)
            .for_each(|(x, (values, scales))| pack_groups(x, values, scales));
    }
    Activations { groups, values, scales }
}

/// Packs groups one by one.
fn pack_groups(x: &[[f32; GROUP]], values: &mut [Group], scales: &mut [f32]) {
    for ((x, group), scale) in x.iter().zip(values).zip(scales) {
        *scale = pack_group(x, group);
    }
}

/// Packs one group and returns its scale.
fn pack_group(x: &[f32; GROUP], group: &mut Group) -> f32 {
    // The bits of absolute values are ordered as the values are, infinities and NaN last.
    let largest = x.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    let steps = if largest.is_finite() && largest >= SMALLEST { LARGEST / largest } else { 0.0 };
    let mut integers = [0_u32; GROUP];
    for (integer, value) in integers.iter_mut().zip(x) {
        // Adding 1.5·2²³ leaves the nearest integer (ties to even) in the low bits.
        let value = if steps == 0.0 { 0.0 } else { value * steps };
        *integer = (value + 12_582_912.0).to_bits().wrapping_sub(0x4b40_0000).wrapping_add(1 << 23);
    }
    for (d, eight) in integers.as_chunks::<8>().0.iter().enumerate() {
        for parity in 0..2 {
            let quad: [u32; 4] = std::array::from_fn(|i| eight[2 * i + parity]);
            for (piece, shift) in group.iter_mut().zip([16, 8, 0]) {
                piece[2 * d + parity] = quad.map(|q| (q >> shift) as u8);
            }
        }
    }
    match () {
        () if !largest.is_finite() => f32::NAN,
        () if steps == 0.0 => 0.0,
        () => largest / LARGEST,
    }
}

/// Expands a panel in plain Rust; rows beyond it keep what they had (their results are dropped).
fn expand<const ROWS: usize>(
    (blocks, scales): Panel<'_>,
    groups: usize,
    out: &mut [Weights<ROWS>],
) {
    let blocks = blocks.as_chunks::<GROUP_BYTES>().0;
    for (row, (blocks, scales)) in
        blocks.chunks_exact(groups).zip(scales.chunks_exact(groups)).enumerate()
    {
        for ((bytes, scale), out) in blocks.iter().zip(scales).zip(out.iter_mut()) {
            let mut sum = 0;
            for (d, four) in bytes.as_chunks::<4>().0.iter().enumerate() {
                let even = four.map(|byte| DOUBLED[usize::from(byte & 15)]);
                let odd = four.map(|byte| DOUBLED[usize::from(byte >> 4)]);
                sum += even.iter().chain(&odd).map(|w| i32::from(*w)).sum::<i32>();
                out.quads[2 * d][row] = even;
                out.quads[2 * d + 1][row] = odd;
            }
            out.correction[row] = -128 * sum;
            out.scales[row] = half_scale(*scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_keep_22_bits_of_their_groups_largest() {
        let x: [f32; GROUP] = std::array::from_fn(|i| (i as f32 - 11.3) * 0.731);
        let mut group = [[[0; 4]; QUADS]; PIECES];
        let scale = pack_group(&x, &mut group);
        assert!(scale < 21.0 * 0.731 / 4e6);
        for (i, value) in x.iter().enumerate() {
            let (quad, byte) = (i / 8 * 2 + i % 2, i % 8 / 2);
            let integer =
                group.iter().fold(0, |sum, piece| 256 * sum + i32::from(piece[quad][byte]))
                    - (1 << 23);
            assert!(
                (f64::from(integer) * f64::from(scale) - f64::from(*value)).abs()
                    <= f64::from(scale) * 1.01,
                "{i}"
            );
        }
    }
}

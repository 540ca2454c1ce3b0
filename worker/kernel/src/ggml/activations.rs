//! Activations as integers of 16 bits, one scale per group of 32.
//!
//! q = round(x/s) with |q| ≤ 32639 = 127·256 + 127, so that q is 256·high + low with both in a
//! signed byte. x is off by at most s/2 = max|x| of its group / 65278. A group with an infinite or
//! NaN activation gives NaN; one whose activations are all below 2^−100 counts as zero.
#![allow(clippy::indexing_slicing)]

use super::format::{GROUPS, SUPER, lane};

/// Largest magnitude of an activation's integer.
const LARGEST: f32 = 32639.0;
/// Groups below this count as zero (their scale's reciprocal would overflow): 2^−100.
const SMALLEST: f32 = f32::from_bits(27 << 23);

/// 256 activations.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Integers {
    pub high: [i8; SUPER],
    pub low: [i8; SUPER],
    pub whole: [i16; SUPER],
    /// Per group of 16, in the order of [`lane`]: the sum of its integers.
    pub sums: [i32; GROUPS],
    /// Likewise: what one step is worth; NaN for a group with a value that is not finite.
    pub scales: [f32; GROUPS],
    /// Likewise: sum times scale.
    pub values: [f32; GROUPS],
}

const ZERO: Integers = Integers {
    high: [0; SUPER],
    low: [0; SUPER],
    whole: [0; SUPER],
    sums: [0; GROUPS],
    scales: [0.0; GROUPS],
    values: [0.0; GROUPS],
};

/// The activations of all tokens.
pub(super) struct Activations {
    per_row: usize,
    all: Vec<Integers>,
}

impl Activations {
    /// x is [n, columns]; a row's last 256 are filled up with zeros.
    pub fn new(x: &[f32], columns: usize) -> Self {
        let per_row = columns.div_ceil(SUPER);
        let mut all = vec![ZERO; x.len() / columns * per_row];
        for (row, out) in x.chunks_exact(columns).zip(all.chunks_exact_mut(per_row)) {
            for (x, out) in row.chunks(SUPER).zip(out) {
                for (group, x) in x.chunks(32).enumerate() {
                    convert(x, group, out);
                }
            }
        }
        Self { per_row, all }
    }

    /// The activations of one token.
    pub fn row(&self, token: usize) -> &[Integers] {
        &self.all[token * self.per_row..(token + 1) * self.per_row]
    }
}

/// One group of 32.
fn convert(x: &[f32], group: usize, out: &mut Integers) {
    // The bits of absolute values are ordered as the values are, infinities and NaN last.
    let largest = f32::from_bits(
        x.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff)),
    );
    let steps = if largest.is_finite() && largest >= SMALLEST { LARGEST / largest } else { 0.0 };
    let scale = match () {
        () if !largest.is_finite() => f32::NAN,
        () if steps == 0.0 => 0.0,
        () => largest / LARGEST,
    };
    if steps != 0.0 {
        for (i, x) in x.iter().enumerate() {
            // Adding 1.5·2²³ leaves the nearest integer (ties to even) in the low bits.
            let whole = (x * steps + 12_582_912.0).to_bits() as u16 as i16;
            let at = 32 * group + i;
            out.whole[at] = whole;
            // The low byte is taken as signed, so the high one is rounded.
            out.high[at] = ((i32::from(whole) + 128) >> 8) as i8;
            out.low[at] = whole as i8;
        }
    }
    for half in [2 * group, 2 * group + 1] {
        let sum = out.whole[16 * half..16 * half + 16].iter().map(|q| i32::from(*q)).sum::<i32>();
        out.sums[lane(half)] = sum;
        out.scales[lane(half)] = scale;
        out.values[lane(half)] = sum as f32 * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bytes_make_the_integer_and_the_integer_the_value() {
        let x: Vec<f32> = (0..288).map(|i| ((i * 37 % 101) as f32 - 50.3) * 0.731).collect();
        let made = Activations::new(&x, 288);
        for (i, x) in x.iter().enumerate() {
            let (integers, at) = (&made.row(0)[i / SUPER], i % SUPER);
            assert_eq!(
                i32::from(integers.high[at]) * 256 + i32::from(integers.low[at]),
                i32::from(integers.whole[at])
            );
            let scale = integers.scales[lane(at / 16)];
            assert!((f32::from(integers.whole[at]) * scale - x).abs() <= scale * 0.501, "{i}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let mut x = [1.0; 64];
        x[40] = f32::NAN;
        let made = Activations::new(&x, 64);
        let scales = made.row(0)[0].scales;
        assert!(
            scales[lane(2)].is_nan()
                && scales[lane(3)].is_nan()
                && scales[lane(1)] > 0.0
                && scales[lane(4)] == 0.0
        );
    }
}

//! e^x of many values at once: the loops of softmax and of gated units spend their time there.
//!
//! x = n·ln 2 + r with |r| ≤ ln 2 / 2, e^r by Cephes's polynomial of degree 7 (Moshier), 2ⁿ by its
//! bits: off by at most 2 units in the last place. Every processor does the same operations, none
//! of them fused, so the result is the same to the bit everywhere; the compiler lays them out for
//! the widest registers that there are.

/// Adding and subtracting it rounds to an integer, which then stands in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// e^x is 0 below, and infinite above.
const LOWEST: f32 = -86.9;
const HIGHEST: f32 = 89.0;

/// ln 2 in two parts, the first of few enough bits that n times it is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// Values that are summed side by side.
const LANES: usize = 16;

#[inline(always)]
fn one(x: f32) -> f32 {
    // Comparisons keep what is not a number; min and max would not.
    let high = if x > HIGHEST { HIGHEST } else { x };
    let inside = if high < LOWEST { LOWEST } else { high };
    let shifted = inside * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = inside - n * LN_2[0] - n * LN_2[1];
    let mut y = 1.987_569_1e-4;
    y = y * r + 1.398_199_9e-3;
    y = y * r + 8.333_452e-3;
    y = y * r + 4.166_579_6e-2;
    y = y * r + 1.666_666_5e-1;
    y = y * r + 0.5;
    y = y * r * r + r + 1.0;
    // Half of 2ⁿ: all of it would be infinite for the largest finite results.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(126);
    let y = y * f32::from_bits(exponent << 23) * 2.0;
    if x < LOWEST { 0.0 } else { y }
}

#[inline(always)]
fn each(values: &mut [f32]) {
    for x in values {
        *x = one(*x);
    }
}

#[inline(always)]
fn shifted(values: &mut [f32], shift: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (whole, rest) = values.as_chunks_mut::<LANES>();
    for chunk in whole {
        for (x, sum) in chunk.iter_mut().zip(&mut sums) {
            *x = one(*x - shift);
            *sum += *x;
        }
    }
    let mut sum = sums.iter().sum();
    for x in rest {
        *x = one(*x - shift);
        sum += *x;
    }
    sum
}

/// The same loops for wider registers.
#[cfg(target_arch = "x86_64")]
mod wide {
    /// # Safety
    /// The processor has AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn each_512(values: &mut [f32]) {
        super::each(values);
    }

    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn each_256(values: &mut [f32]) {
        super::each(values);
    }

    /// # Safety
    /// The processor has AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn shifted_512(values: &mut [f32], shift: f32) -> f32 {
        super::shifted(values, shift)
    }

    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn shifted_256(values: &mut [f32], shift: f32) -> f32 {
        super::shifted(values, shift)
    }
}

/// Puts e^x in the place of every x.
pub fn exp(values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            // SAFETY: just asked.
            return unsafe { wide::each_512(values) };
        }
        if std::is_x86_feature_detected!("avx2") {
            // SAFETY: just asked.
            return unsafe { wide::each_256(values) };
        }
    }
    each(values);
}

/// Puts e^(x − shift) in the place of every x, and gives their sum.
pub fn exp_shifted(values: &mut [f32], shift: f32) -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            // SAFETY: just asked.
            return unsafe { wide::shifted_512(values, shift) };
        }
        if std::is_x86_feature_detected!("avx2") {
            // SAFETY: just asked.
            return unsafe { wide::shifted_256(values, shift) };
        }
    }
    shifted(values, shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_exact_function_to_two_units() {
        let mut values: Vec<f32> = (-868..=880).map(|i| i as f32 / 10.0 + 0.013).collect();
        values.extend([0.0, -0.0, 1e-20, 1.0, -1.0, 88.72, -86.89]);
        let exact: Vec<f64> = values.iter().map(|x| f64::from(*x).exp()).collect();
        let mut found = values.clone();
        exp(&mut found);
        for ((x, found), exact) in values.iter().zip(&found).zip(&exact) {
            let off = (f64::from(*found) - exact).abs() / exact;
            assert!(off < 2.0 * f64::from(f32::EPSILON), "e^{x}: {found}, {exact}");
        }
        let mut plain = values;
        each(&mut plain);
        assert_eq!(plain, found, "the same on every processor");
    }

    #[test]
    fn the_ends_are_zero_and_infinite_and_what_is_no_number_stays_none() {
        let mut ends = [-88.0, -1e30, f32::NEG_INFINITY, 89.5, f32::INFINITY, f32::NAN];
        exp(&mut ends);
        assert_eq!(ends[..5], [0.0, 0.0, 0.0, f32::INFINITY, f32::INFINITY]);
        assert!(ends[5].is_nan());
    }

    #[test]
    fn shifted_values_are_summed() {
        let values: Vec<f32> = (0..37).map(|i| (i * 7 % 19) as f32 / 3.0).collect();
        let mut found = values.clone();
        let sum = exp_shifted(&mut found, 6.0);
        let exact: f64 = values.iter().map(|x| f64::from(x - 6.0).exp()).sum();
        assert!((f64::from(sum) - exact).abs() < 1e-6 * exact, "{sum}, {exact}");
        let mut plain = values;
        assert_eq!((shifted(&mut plain, 6.0), plain), (sum, found));
    }
}

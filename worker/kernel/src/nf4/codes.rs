//! The sixteen values of NF4 (Dettmers et al. 2023, QLoRA: quantiles of a normal distribution, scaled to
//! −1 to 1, with an exact zero), as bitsandbytes has them.

/// The values, ascending.
pub(super) const VALUES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The code of the nearest value; of two that are as near, the lower one.
pub(super) fn nearest(x: f32) -> u8 {
    let middles = VALUES.iter().zip(VALUES.iter().skip(1)).map(|(low, high)| (low + high) / 2.0);
    middles.map(|middle| u8::from(middle < x)).sum()
}

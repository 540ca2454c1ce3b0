//! The int8 kernel in plain Rust: the reference that all others agree with to the bit.
#![allow(clippy::indexing_slicing)]

use super::{Activations, Weights};

/// Rows of a panel.
const ROWS: usize = 16;

/// Products of one panel with one token.
pub(super) fn dot(weights: &[Weights<ROWS>], activations: &Activations, [token]: [usize; 1]) -> [[f32; ROWS]; 1] {
    let first = token * activations.groups;
    let groups = &activations.values[first..first + activations.groups];
    let scales = &activations.scales[first..first + activations.groups];
    let mut out = [0.0; ROWS];
    for ((w, x), scale) in weights.iter().zip(groups).zip(scales) {
        let mut sums = w.correction;
        for half in [&x.high, &x.low] {
            if std::ptr::eq(half, &raw const x.low) {
                sums = sums.map(|sum| sum << 8);
            }
            for (quad, x) in w.quads.iter().zip(half) {
                for (sum, w) in sums.iter_mut().zip(quad) {
                    for i in 0..4 {
                        *sum += i32::from(w[i]) * i32::from(x[i]);
                    }
                }
            }
        }
        for ((out, sum), w) in out.iter_mut().zip(sums).zip(w.scales) {
            *out += sum as f32 * (w * scale);
        }
    }
    [out]
}

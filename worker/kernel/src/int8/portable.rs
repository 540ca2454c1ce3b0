//! The int8 kernel in plain Rust: the reference that all others agree with to the bit.
#![allow(clippy::indexing_slicing)]

use super::{Activations, QUADS, Weights};

/// Rows of a panel.
const ROWS: usize = 16;

/// Products of one panel with one token.
pub(super) fn dot(
    weights: &[Weights<ROWS>],
    activations: &Activations,
    [token]: [usize; 1],
) -> [[f32; ROWS]; 1] {
    let first = token * activations.groups;
    let groups = &activations.values[first..first + activations.groups];
    let scales = &activations.scales[first..first + activations.groups];
    let mut out = [0.0; ROWS];
    for ((w, x), scale) in weights.iter().zip(groups).zip(scales) {
        let start = piece(w.correction, &x[0], &w.quads);
        let sums =
            x[1..].iter().fold(start, |sums, x| piece(sums.map(|sum| sum << 8), x, &w.quads));
        for ((out, sum), w) in out.iter_mut().zip(sums).zip(w.scales) {
            *out += sum as f32 * (w * scale);
        }
    }
    [out]
}

/// Adds one byte's products; sums may wrap until the last byte's.
fn piece(mut sums: [i32; ROWS], x: &[[u8; 4]; QUADS], w: &[[[i8; 4]; ROWS]; QUADS]) -> [i32; ROWS] {
    for (x, w) in x.iter().zip(w) {
        let x = x.map(i32::from);
        for (sum, w) in sums.iter_mut().zip(w) {
            let w = w.map(i32::from);
            *sum = sum.wrapping_add(w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3]);
        }
    }
    sums
}

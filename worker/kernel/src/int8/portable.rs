//! The int8 kernel in plain Rust: the reference that all others agree with to the bit.
#![allow(clippy::indexing_slicing)]

use super::{Activations, QUADS, Weights};

/// Rows of a panel.
const ROWS: usize = 16;

/// Products of one panel with one token.
pub(super) fn dot(weights: &[Weights<ROWS>], activations: &Activations, [token]: [usize; 1]) -> [[f32; ROWS]; 1] {
    let first = token * activations.groups;
    let groups = &activations.values[first..first + activations.groups];
    let scales = &activations.scales[first..first + activations.groups];
    let mut out = [0.0; ROWS];
    for ((w, x), scale) in weights.iter().zip(groups).zip(scales) {
        let high = half(w.correction, &x.high, &w.quads);
        let sums = half(high.map(|sum| sum << 8), &x.low, &w.quads);
        for ((out, sum), w) in out.iter_mut().zip(sums).zip(w.scales) {
            *out += sum as f32 * (w * scale);
        }
    }
    [out]
}

/// Adds one half's products. Each of a quad's four places is summed on its own in 16 bits (at most 8·12·255 = 24480), which
/// compilers turn into vector code on every processor.
fn half(mut sums: [i32; ROWS], x: &[[u8; 4]; QUADS], w: &[[[i8; 4]; ROWS]; QUADS]) -> [i32; ROWS] {
    let mut places = [0_i16; 4 * ROWS];
    for (x, w) in x.iter().zip(w) {
        let mut repeated = [0_i16; 4 * ROWS];
        for quad in repeated.as_chunks_mut::<4>().0 {
            *quad = x.map(i16::from);
        }
        for ((place, w), x) in places.iter_mut().zip(w.as_flattened()).zip(repeated) {
            *place += i16::from(*w) * x;
        }
    }
    for (sum, four) in sums.iter_mut().zip(places.as_chunks::<4>().0) {
        *sum += four.iter().map(|place| i32::from(*place)).sum::<i32>();
    }
    sums
}

//! The second quantisation: the blocks' largest magnitudes, which scale them, held in 8 bits.
//!
//! As in bitsandbytes: their mean is subtracted, and of the rest 256 at a time are divided by their own
//! largest magnitude and stored as the nearest of 256 steps, which lie the denser the nearer they are to
//! 0 (Dettmers 2016, arXiv 1511.04561).
//!
//! Indexing: a scale's number is below their count, which the caller has; codes are bytes and there are 256
//! steps.
#![allow(clippy::indexing_slicing)]

use std::sync::LazyLock;

/// Scales under one f32.
const GROUP: usize = 256;

/// What the codes stand for, ascending: bitsandbytes' signed dynamic map.
pub(super) static STEPS: LazyLock<[f32; 256]> = LazyLock::new(steps);

/// 0, 1 and, for each power of ten from 10⁻⁶ to 1, the middles of 2ⁱ equal parts of 0.1 to 1 of it, of
/// either sign.
fn steps() -> [f32; 256] {
    let mut steps = Vec::with_capacity(256);
    steps.extend([0.0, 1.0]);
    for power in 0..7 {
        let parts = 1 << power;
        let size = 10f64.powi(power - 6) as f32;
        for part in 0..parts {
            let middle = (bound(part, parts) + bound(part + 1, parts)) / 2.0;
            steps.extend([size * middle, -size * middle]);
        }
    }
    steps.sort_by(f32::total_cmp);
    steps.try_into().unwrap_or([0.0; 256])
}

/// Where part `at` of 0.1 to 1 begins, with torch.linspace's roundings: from the nearer end, the step in
/// f32, the rest rounded once.
fn bound(at: i32, parts: i32) -> f32 {
    let step = f64::from((1.0 - 0.1f32) / parts as f32);
    let value = if at < (parts + 1) / 2 {
        f64::from(0.1f32) + step * f64::from(at)
    } else {
        1.0 - step * f64::from(parts - at)
    };
    value as f32
}

/// The scales of a matrix's blocks.
pub(super) struct Scales {
    codes: Vec<u8>,
    absmax: Vec<f32>,
    offset: f32,
}

impl Scales {
    /// Bytes of the scales of so many blocks.
    pub fn bytes_of(blocks: usize) -> usize {
        blocks + 4 * blocks.div_ceil(GROUP) + 4
    }

    /// Those nearest to `scales`, which are finite.
    pub fn new(scales: &[f32]) -> Self {
        // In f64, rounded once: PyTorch's own order of adding depends on the machine.
        let sum: f64 = scales.iter().map(|scale| f64::from(*scale)).sum();
        let offset = (sum / scales.len().max(1) as f64) as f32;
        let mut this = Self { codes: Vec::with_capacity(scales.len()), absmax: Vec::new(), offset };
        for group in scales.chunks(GROUP) {
            this.push(group.iter().map(|scale| scale - offset));
        }
        this
    }

    fn push(&mut self, group: impl ExactSizeIterator<Item = f32> + Clone) {
        let absmax = super::absmax(group.clone());
        let whole = group.len() == GROUP;
        self.codes.extend(group.map(|x| nearest(super::scaled(x, absmax, whole))));
        self.absmax.push(absmax);
    }

    /// The scale of a block.
    #[inline]
    pub fn get(&self, block: usize) -> f32 {
        STEPS[usize::from(self.codes[block])] * self.absmax[block / GROUP] + self.offset
    }

    /// Codes, and the numbers that they are read with: see [`super::Nf4Parts`].
    pub fn parts(&self) -> (&[u8], Vec<f32>) {
        let numbers = STEPS.iter().chain([&self.offset]).chain(&self.absmax);
        (&self.codes, numbers.copied().collect())
    }
}

/// The code of the nearest step; of two that are as near, the lower one.
fn nearest(x: f32) -> u8 {
    let after = STEPS.partition_point(|step| *step < x);
    let lower = after.clamp(1, 255) - 1;
    let middle = (STEPS[lower] + STEPS[lower + 1]) / 2.0;
    (lower + usize::from(middle < x)) as u8
}

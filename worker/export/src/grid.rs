//! The 4-bit grid: codes 0..=15 around a zero point of 8, so a weight is `(code − 8) · scale`, one
//! scale per group.

use crate::{ExportError, Result};
use half::f16;

/// The zero point of the symmetric grid.
pub const ZERO: u8 = 8;
/// The largest code.
pub const MAX_CODE: u8 = 15;
/// Clip ratios that a search tries: from 1 down by [`CLIP_STEP`].
const CLIP_TRIES: u32 = 60;
const CLIP_STEP: f32 = 0.01;

/// How a group's scale follows from its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleRule {
    /// 2·max|w| / 15, GPTQ's and AutoGPTQ's symmetric rule: nothing is clipped by more than half a
    /// step.
    AbsMax,
    /// The clip ratio of the smallest squared error, each weight weighted by its input's energy
    /// where that is known. `signed` also tries negative scales, which give the grid's longer side
    /// (−8) to positive weights, as Q4_0 does.
    Search {
        /// Try negative scales too.
        signed: bool,
    },
}

/// The group size for a whole model: the largest of 128, 64 and 32 that divides every linear's
/// input width.
///
/// # Errors
/// [`ExportError::Unsupported`] where none does.
pub fn group_size(widths: impl IntoIterator<Item = usize>) -> Result<usize> {
    let widths: Vec<usize> = widths.into_iter().collect();
    let fits = |group: &usize| widths.iter().all(|w| *w > 0 && w.is_multiple_of(*group));
    [128, 64, 32].into_iter().find(fits).ok_or_else(|| {
        ExportError::Unsupported(format!(
            "no group of 128, 64 or 32 divides all of the linears' input widths {widths:?}"
        ))
    })
}

/// The scale of one group. `energy`, of the same length or empty, weighs each weight's squared
/// error in a search. `None` where the weights are not finite or their scale exceeds f16.
pub fn scale(weights: &[f32], energy: &[f64], rule: ScaleRule) -> Option<f16> {
    let top = weights.iter().fold(0f32, |m, w| m.max(w.abs()));
    if !weights.iter().all(|w| w.is_finite()) {
        return None;
    }
    let scale = match rule {
        _ if top == 0.0 => f16::ONE,
        ScaleRule::AbsMax => storable(top / 7.5),
        ScaleRule::Search { signed } => search(weights, energy, top, signed),
    };
    scale.is_finite().then_some(scale)
}

/// f16 has no room below 6e-8; a scale must not become zero, it divides.
pub(crate) fn storable(scale: f32) -> f16 {
    let half = f16::from_f32(scale);
    if half.to_f32() == 0.0 { f16::from_bits(1) } else { half }
}

fn search(weights: &[f32], energy: &[f64], top: f32, signed: bool) -> f16 {
    let signs: &[f32] = if signed { &[1.0, -1.0] } else { &[1.0] };
    let mut best = (f64::INFINITY, storable(top / 7.0));
    for sign in signs {
        for step in 0..=CLIP_TRIES {
            // From top/7 (nothing clipped on the shorter side) downwards.
            let candidate = storable(sign * top / 7.0 * (1.0 - CLIP_STEP * step as f32));
            let error = squared_error(weights, energy, candidate.to_f32());
            if error < best.0 {
                best = (error, candidate);
            }
        }
    }
    best.1
}

fn squared_error(weights: &[f32], energy: &[f64], scale: f32) -> f64 {
    let plain = |w: &f32| f64::from(w - value(code(*w, scale), scale)).powi(2);
    if energy.len() == weights.len() {
        weights.iter().zip(energy).map(|(w, e)| plain(w) * e).sum()
    } else {
        weights.iter().map(plain).sum()
    }
}

/// The code nearest to `weight`.
#[inline]
pub fn code(weight: f32, scale: f32) -> u8 {
    (weight / scale + f32::from(ZERO)).round().clamp(0.0, f32::from(MAX_CODE)) as u8
}

/// The weight that `code` stands for.
#[inline]
pub fn value(code: u8, scale: f32) -> f32 {
    (f32::from(code) - f32::from(ZERO)) * scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_group_size_for_the_whole_model() {
        assert_eq!(group_size([128, 384]).unwrap(), 128);
        assert_eq!(group_size([128, 192]).unwrap(), 64);
        assert_eq!(group_size([2880, 4096]).unwrap(), 64);
        assert_eq!(group_size([128, 96]).unwrap(), 32);
        assert!(matches!(group_size([100]), Err(ExportError::Unsupported(_))));
    }

    #[test]
    fn zeros_and_dust_keep_a_usable_scale() {
        assert_eq!(scale(&[0.0; 4], &[], ScaleRule::AbsMax), Some(f16::ONE));
        assert!(scale(&[1e-12; 4], &[], ScaleRule::AbsMax).unwrap().to_f32() > 0.0);
        assert_eq!(scale(&[1e9], &[], ScaleRule::AbsMax), None);
        assert_eq!(scale(&[f32::NAN, 1.0], &[], ScaleRule::AbsMax), None);
    }

    proptest! {
        #[test]
        fn nothing_is_off_by_more_than_a_step_at_the_clipped_end(w in prop::collection::vec(-3f32..3.0, 1..64)) {
            let s = scale(&w, &[], ScaleRule::AbsMax).unwrap().to_f32();
            for x in &w {
                // Half a step, except that +max is 7.5 steps and the grid ends at 7; and f16 rounds
                // the scale.
                prop_assert!((x - value(code(*x, s), s)).abs() <= s * 0.51);
            }
        }

        #[test]
        fn searching_never_loses(w in prop::collection::vec(-3f32..3.0, 32)) {
            let error = |rule| squared_error(&w, &[], scale(&w, &[], rule).unwrap().to_f32());
            let (plain, unsigned) = (error(ScaleRule::AbsMax), error(ScaleRule::Search { signed: false }));
            let signed = error(ScaleRule::Search { signed: true });
            // The search's grid of ratios has no exact 7/7.5, hence the margin.
            prop_assert!(unsigned <= plain * 1.02 + 1e-9);
            prop_assert!(signed <= unsigned);
        }
    }
}

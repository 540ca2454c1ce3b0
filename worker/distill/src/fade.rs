//! A student's mask that ramps in: the outputs of what it cuts are scaled down from step to step, and gone
//! after a share of them. So the adapter learns to do without heads and channels while they still help,
//! rather than from a student that lost them all at once.
//!
//! The adapter is of the whole student; who writes the student without what is cut merges it first.

use crate::{DistillError, Result};
use uspx_domain::Mask;
use uspx_model::LoadedModel;
use uspx_model::cuts::CutTaps;

/// A student's mask, and how it comes over a training.
#[derive(Debug, Clone, Copy)]
pub struct Fading<'a> {
    /// The mask, of the student's heads and channels.
    pub mask: &'a Mask,
    /// Share of the planned steps over which what it cuts fades; at 0 it is gone from the first one.
    pub ramp: f32,
}

/// The same for one student; nothing is cut where there is no mask.
pub(crate) struct Fade {
    cut: CutTaps,
    ramp: f64,
}

impl Fade {
    /// Of this student.
    ///
    /// # Errors
    /// A ramp that is no share, or a mask of another model.
    pub fn of(student: &LoadedModel, fading: Option<Fading<'_>>) -> Result<Self> {
        let Some(Fading { mask, ramp }) = fading else {
            return Ok(Self { cut: CutTaps::default(), ramp: 0.0 });
        };
        if !(0.0..=1.0).contains(&ramp) {
            return Err(DistillError::Recipe(format!("the ramp is {ramp}, 0 to 1 are possible")));
        }
        if mask.model != student.fingerprint {
            let (of, here) = (mask.model, student.fingerprint);
            let why = format!("the student's mask is of model {of}, the student is {here}");
            return Err(DistillError::Recipe(why));
        }
        Ok(Self { cut: student.cut_of_mask(mask)?, ramp: ramp.into() })
    }

    /// All that is cut: what the student is judged without.
    pub fn whole(&self) -> &CutTaps {
        &self.cut
    }

    /// What the student learns without at a step, from 0, of so many.
    ///
    /// # Errors
    /// A mask of what cannot fade.
    pub fn at(&self, step: u32, steps: u32) -> Result<CutTaps> {
        let left = left(self.ramp, step, steps);
        Ok(if left > 0.0 { self.cut.faded(left)? } else { self.cut.clone() })
    }

    /// The passes, of so many, until all is gone: the student, judged without, need not gain before.
    pub fn passes(&self, of: u32) -> u32 {
        (self.ramp * f64::from(of)).ceil() as u32
    }
}

/// How much of what is cut is left at a step: all of it at the first, and linearly less from there on.
fn left(ramp: f64, step: u32, steps: u32) -> f64 {
    let fading = ramp * f64::from(steps);
    if fading > 0.0 { (1.0 - f64::from(step) / fading).max(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_fades_linearly_over_its_share_of_the_steps() {
        let over = |ramp, steps: u32| -> Vec<f64> {
            (0..steps).map(|step| left(ramp, step, steps)).collect()
        };
        assert_eq!(over(0.5, 8), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(over(1.0, 4), [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(over(0.0, 3), [0.0; 3]);
        assert_eq!((over(0.5, 1), over(0.5, 0)), (vec![1.0], vec![]));
    }

    #[test]
    fn passes_that_fade_are_rounded_up() {
        let of = |ramp| Fade { cut: CutTaps::default(), ramp }.passes(5);
        assert_eq!([of(0.0), of(0.2), of(0.5), of(1.0)], [0, 1, 3, 5]);
    }
}

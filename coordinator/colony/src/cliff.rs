//! Where the curve of cuts turns steep.
//!
//! The rule: beyond the cliff a further cut costs `STEEPER` times as much, per share pruned, as
//! all cuts up to there on average, and the step holds at least `SHARE` of the curve's highest
//! rise, so that noise at the flat beginning is no cliff. The first such step counts.

use crate::bootstrap::{Draws, Estimate};
use serde::{Deserialize, Serialize};

/// How much steeper a step is than the way up to it.
const STEEPER: f64 = 3.0;
/// The part of the curve's highest rise that a step holds at least.
const SHARE: f64 = 0.1;

/// The step at which the curve turns steep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cliff {
    /// The last share pruned before it.
    pub before: f64,
    /// The rise there.
    pub rise_before: f64,
    /// The first share pruned behind it.
    pub behind: f64,
    /// The rise there.
    pub rise_behind: f64,
}

/// The cliff of a curve of (share pruned, rise), ascending by share; none where it has none. The
/// curve begins with nothing pruned, which costs nothing; a first step has no way before it and is
/// never a cliff.
pub fn cliff(curve: &[(f64, f64)]) -> Option<Cliff> {
    let highest = curve.iter().map(|(_, rise)| *rise).fold(0.0, f64::max);
    let is_steep = |((p, r), (q, s)): &((f64, f64), (f64, f64))| {
        let (before, step) = (r.max(0.0) / p, (s - r) / (q - p));
        *p > 0.0 && q > p && s - r >= SHARE * highest && step > STEEPER * before
    };
    let mut steps = curve.iter().copied().zip(curve.iter().copied().skip(1));
    let ((before, rise_before), (behind, rise_behind)) = steps.find(is_steep)?;
    Some(Cliff { before, rise_before, behind, rise_behind })
}

/// A cliff, and how sure it is that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SureCliff {
    /// On the prompts as they are.
    pub cliff: Cliff,
    /// How much the loss rises over it.
    pub step: Estimate,
    /// The share of draws on which the cliff is at the same step.
    pub same: f64,
    /// The last share pruned before the cliff, over the draws that have one.
    pub before: Estimate,
}

/// The cliff of the curve that `curve` gives of the prompts, or of a draw of them; none where it has
/// none, or where the loss does not surely rise over it.
pub fn sure_cliff(
    curve: impl Fn(Option<&[u32]>) -> Vec<(f64, f64)>,
    draws: &Draws,
) -> Option<SureCliff> {
    let found = cliff(&curve(None))?;
    let (mut steps, mut before) = (Vec::new(), Vec::new());
    for counts in draws.iter() {
        let drawn = curve(Some(counts));
        let rise = |share: f64| drawn.iter().find(|p| p.0 == share).map_or(f64::NAN, |p| p.1);
        steps.push(rise(found.behind) - rise(found.before));
        before.push(cliff(&drawn).map_or(f64::NAN, |cliff| cliff.before));
    }
    let same = before.iter().filter(|share| **share == found.before).count();
    let same = same as f64 / before.len() as f64;
    let step = Estimate::of(found.rise_behind - found.rise_before, steps);
    let before = Estimate::of(found.before, before);
    (step.low > 0.0).then_some(SureCliff { cliff: found, step, same, before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dice;
    use proptest::prelude::*;

    #[test]
    fn the_first_steep_step_is_the_cliff() {
        let curve = [(0.1, 0.01), (0.25, 0.02), (0.4, 0.04), (0.5, 0.2), (0.6, 1.0)];
        // Up to 40 % the loss rises by 0.1 a share, then by 1.6.
        let found = cliff(&curve).unwrap();
        assert_eq!((found.before, found.behind), (0.4, 0.5));
        assert_eq!((found.rise_before, found.rise_behind), (0.04, 0.2));
    }

    /// Ten prompts that agree, and ten of which one alone makes the step.
    #[test]
    fn a_cliff_is_sure_where_the_prompts_agree() {
        let draws = Draws::new(10, 500, &mut Dice::new(1, "draws", 0));
        let found = |steps: [f64; 10]| {
            let curve = |counts: Option<&[u32]>| {
                let count = |at| counts.map_or(1.0, |counts| f64::from(counts[at]));
                let step: f64 = steps.iter().enumerate().map(|(at, s)| s * count(at)).sum();
                vec![(0.25, 0.1), (0.5, 0.2), (0.75, 0.2 + step / 10.0)]
            };
            sure_cliff(curve, &draws)
        };
        let sure = found([2.0; 10]).unwrap();
        assert_eq!((sure.cliff.before, sure.same), (0.5, 1.0));
        assert!((sure.step.value - 2.0).abs() < 1e-12 && (sure.step.low - 2.0).abs() < 1e-12);
        let mut one = [0.0; 10];
        one[3] = 20.0;
        assert_eq!(found(one), None, "a third of the draws lack that prompt");
        assert_eq!(found([0.01; 10]), None);
    }

    #[test]
    fn a_straight_line_has_none_and_neither_has_noise_at_the_beginning() {
        let line: Vec<(f64, f64)> = (1..9).map(|i| (f64::from(i) / 10.0, f64::from(i))).collect();
        assert_eq!(cliff(&line), None);
        let noisy = [(0.1, -0.001), (0.2, 0.004), (0.4, 0.3), (0.6, 0.5), (0.8, 0.8)];
        assert_eq!(cliff(&noisy).unwrap().before, 0.2, "0.005 of 0.8 is noise");
        assert_eq!(cliff(&[(0.5, 3.0)]), None);
        assert_eq!(cliff(&[]), None);
    }

    proptest! {
        /// The unit of the loss does not matter, and a cliff is a step of the curve.
        #[test]
        fn the_cliff_does_not_depend_on_the_unit(rises in prop::collection::vec(-1f64..9.0, 0..9)) {
            let curve: Vec<(f64, f64)> =
                rises.iter().zip(1..).map(|(r, i)| (f64::from(i) / 10.0, *r)).collect();
            let double: Vec<(f64, f64)> = curve.iter().map(|(p, r)| (*p, 2.0 * r)).collect();
            let found = cliff(&curve);
            prop_assert_eq!(found.map(|c| c.before), cliff(&double).map(|c| c.before));
            if let Some(c) = found {
                prop_assert!(curve.contains(&(c.before, c.rise_before)));
                prop_assert!(c.rise_behind > c.rise_before && c.behind > c.before);
            }
        }
    }
}

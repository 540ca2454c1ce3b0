//! The outer step of DiLoCo (Douillard et al. 2023, arXiv 2311.08105, algorithm 1): Nesterov momentum over
//! pseudo-gradients.
//!
//! Every machine goes some steps of its own from a common start; the mean of (start − now) is the gradient g
//! here, and moves the start: v ← μ·v + g, then x ← x − η·(g + μ·v). That is PyTorch's
//! `SGD(nesterov=True, dampening=0)`, whose first step sets v to g, as a v of zeros does here.
//!
//! Every product and sum is rounded to f32 by itself, in the order of entries, so that all machines that are
//! given the same bits come to the same bits. PyTorch may fuse a product and a sum: it agrees to rounding.

use thiserror::Error;

/// Why an outer step was not made. Nothing has moved then.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum OuterError {
    /// The rate is no finite number above 0.
    #[error("the outer rate is {0}, not a finite number above 0")]
    Rate(f32),
    /// The momentum is not from 0 to below 1.
    #[error("the outer momentum is {0}, not from 0 to below 1")]
    Momentum(f32),
    /// Values that belong together are not equally many.
    #[error("there are {found} {what} for {expected} parameters")]
    Length {
        /// Which values.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The step would make this parameter, or its velocity, infinite or not a number.
    #[error("the outer step of parameter {0} is not finite")]
    NotFinite(usize),
}

/// The outer optimiser: what moves the common start (DiLoCo, arXiv 2311.08105).
///
/// The fields are open so that a training can be kept and gone on with; `step` checks them.
#[derive(Debug, Clone, PartialEq)]
pub struct Outer {
    /// η: the share of a step that is gone. About 0.7 in DiLoCo; 1 with momentum 0 is plain averaging.
    pub rate: f32,
    /// μ: how much of the velocity stays. About 0.9 in DiLoCo; 0 where error feedback plays its role, as in
    /// SparseLoCo (arXiv 2508.15706).
    pub momentum: f32,
    /// v, one a parameter, in the unit of the parameters. Empty where momentum is 0: it is not needed.
    pub velocity: Vec<f32>,
}

impl Outer {
    /// At rest, for `len` parameters.
    ///
    /// # Errors
    /// [`OuterError::Rate`] and [`OuterError::Momentum`] out of range.
    pub fn new(len: usize, rate: f32, momentum: f32) -> Result<Self, OuterError> {
        let velocity = if momentum == 0.0 { Vec::new() } else { vec![0.0; len] };
        let this = Self { rate, momentum, velocity };
        this.check_settings()?;
        Ok(this)
    }

    /// Moves the common start, `start[i]`, against the mean pseudo-gradient, `gradient[i]` = mean of
    /// (start − now), both in the unit of the parameters.
    ///
    /// # Errors
    /// All of [`OuterError`]; nothing has moved then.
    pub fn step(&mut self, start: &mut [f32], gradient: &[f32]) -> Result<(), OuterError> {
        self.check_settings()?;
        check_length("gradients", gradient.len(), start.len())?;
        if self.momentum == 0.0 {
            return self.step_plainly(start, gradient);
        }
        check_length("velocities", self.velocity.len(), start.len())?;
        let (rate, momentum) = (self.rate, self.momentum);
        let next = |x: f32, v: f32, g: f32| {
            let v = momentum * v + g;
            (x - rate * (g + momentum * v), v)
        };
        // All is looked at before anything moves.
        let mut all = start.iter().zip(&self.velocity).zip(gradient);
        check_finite(all.position(|((&x, &v), &g)| {
            let (x, v) = next(x, v, g);
            !(x.is_finite() && v.is_finite())
        }))?;
        for ((x, v), &g) in start.iter_mut().zip(&mut self.velocity).zip(gradient) {
            (*x, *v) = next(*x, *v, g);
        }
        Ok(())
    }

    fn step_plainly(&self, start: &mut [f32], gradient: &[f32]) -> Result<(), OuterError> {
        let next = |x: f32, g: f32| x - self.rate * g;
        let mut all = start.iter().zip(gradient);
        check_finite(all.position(|(&x, &g)| !next(x, g).is_finite()))?;
        for (x, &g) in start.iter_mut().zip(gradient) {
            *x = next(*x, g);
        }
        Ok(())
    }

    fn check_settings(&self) -> Result<(), OuterError> {
        if !(self.rate.is_finite() && self.rate > 0.0) {
            return Err(OuterError::Rate(self.rate));
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(OuterError::Momentum(self.momentum));
        }
        Ok(())
    }
}

fn check_length(what: &'static str, found: usize, expected: usize) -> Result<(), OuterError> {
    if found == expected { Ok(()) } else { Err(OuterError::Length { what, found, expected }) }
}

fn check_finite(bad: Option<usize>) -> Result<(), OuterError> {
    bad.map_or(Ok(()), |at| Err(OuterError::NotFinite(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: η = .5, μ = .5, g = 1, 2, −4. v: 1, 2.5, −2.75; g + μ·v: 1.5, 3.25, −5.375; x: 9.25, 7.625,
    /// 10.3125. All are exact in f32.
    #[test]
    fn three_steps_are_those_reckoned_by_hand() {
        let mut outer = Outer::new(2, 0.5, 0.5).unwrap();
        let mut x = [10.0, -10.0];
        let mut seen = Vec::new();
        for g in [1.0, 2.0, -4.0] {
            outer.step(&mut x, &[g, -g]).unwrap();
            seen.push((x[0], outer.velocity[0]));
            assert_eq!((x[1], outer.velocity[1]), (-x[0], -outer.velocity[0]));
        }
        assert_eq!(seen, [(9.25, 1.0), (7.625, 2.5), (10.3125, -2.75)]);
    }

    /// By hand with DiLoCo's numbers: v = 1, 1.9, 2.71; g + μ·v = 1.9, 2.71, 3.439; x = −.7 · their sum so far.
    #[test]
    fn diloco_numbers() {
        let mut outer = Outer::new(1, 0.7, 0.9).unwrap();
        let mut x = [0.0];
        for expected in [-1.33, -3.227, -5.6343] {
            outer.step(&mut x, &[1.0]).unwrap();
            assert!((x[0] - expected).abs() < 1e-6, "{} {expected}", x[0]);
        }
    }

    #[test]
    fn without_momentum_a_step_of_rate_one_is_the_mean() {
        let mut outer = Outer::new(2, 1.0, 0.0).unwrap();
        let mut x = [4.0, 8.0];
        outer.step(&mut x, &[1.0, -1.0]).unwrap();
        outer.step(&mut x, &[1.0, -1.0]).unwrap();
        assert_eq!((x, outer.velocity.len()), ([2.0, 10.0], 0));
    }

    /// The same bits on every machine: each operation rounded by itself; from a reckoning in
    /// Python that rounds so.
    #[test]
    fn bits_are_fixed() {
        let mut outer = Outer::new(1, 0.7, 0.9).unwrap();
        let mut x = [0.1];
        for g in [0.3, -0.01, 1e-3, 0.2] {
            outer.step(&mut x, &[g]).unwrap();
        }
        assert_eq!((x[0].to_bits(), outer.velocity[0].to_bits()), (0xbf807c5b, 0x3ed2b021));
    }

    #[test]
    fn what_is_wrong_is_said_and_moves_nothing() {
        for rate in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(Outer::new(1, rate, 0.9), Err(OuterError::Rate(_))));
        }
        for momentum in [-0.1, 1.0, f32::NAN] {
            assert!(matches!(Outer::new(1, 0.7, momentum), Err(OuterError::Momentum(_))));
        }
        for momentum in [0.0, 0.9] {
            let mut outer = Outer::new(2, 0.7, momentum).unwrap();
            let before = outer.clone();
            let mut x = [1.0, 2.0];
            for bad in [f32::NAN, f32::INFINITY] {
                assert_eq!(outer.step(&mut x, &[1.0, bad]), Err(OuterError::NotFinite(1)));
            }
            assert!(matches!(outer.step(&mut x, &[1.0]), Err(OuterError::Length { .. })));
            assert_eq!((x, &outer), ([1.0, 2.0], &before));
        }
        let mut outer = Outer { rate: 0.7, momentum: 0.9, velocity: vec![0.0] };
        let said = outer.step(&mut [0.0; 2], &[0.0; 2]).unwrap_err().to_string();
        assert_eq!(said, "there are 1 velocities for 2 parameters");
    }
}

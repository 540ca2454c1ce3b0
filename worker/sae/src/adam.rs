//! Adam (Kingma and Ba 2015, arXiv 1412.6980), without weight decay.

use crate::number::Number;
use crate::parameters::Parameters;
use rayon::prelude::*;

/// Decay of the first moments.
const FIRST: f64 = 0.9;
/// Decay of the second moments.
const SECOND: f64 = 0.999;
/// Added to the root of the second moments. The losses are shares, so gradients are small (Gao et
/// al. 2024 use the same).
const EPSILON: f64 = 6.25e-10;
/// Values that a thread takes at least.
const PIECE: usize = 1 << 14;

/// Moments of the gradients so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Adam<T> {
    pub first: Parameters<T>,
    pub second: Parameters<T>,
}

impl<T: Number> Adam<T> {
    pub fn new(width: usize, features: usize) -> Self {
        Self { first: Parameters::zero(width, features), second: Parameters::zero(width, features) }
    }

    /// Moves the parameters. `step` counts from 1.
    pub fn step(
        &mut self,
        parameters: &mut Parameters<T>,
        gradient: &Parameters<T>,
        (rate, step): (f64, u64),
    ) {
        let unbiased = |decay: f64| 1.0 - decay.powi(i32::try_from(step).unwrap_or(i32::MAX));
        let rate = T::of(rate / unbiased(FIRST));
        let scale = T::of(1.0 / unbiased(SECOND));
        let [first, second, epsilon] = [FIRST, SECOND, EPSILON].map(T::of);
        let moments = self.first.lists_mut().into_iter().zip(self.second.lists_mut());
        let lists = parameters.lists_mut().into_iter().zip(gradient.lists()).zip(moments);
        for ((values, slopes), (m, v)) in lists {
            let all = values.par_iter_mut().zip(slopes).zip(m.par_iter_mut().zip(v));
            all.with_min_len(PIECE).for_each(|((value, slope), (m, v))| {
                *m = first * *m + (T::one() - first) * *slope;
                *v = second * *v + (T::one() - second) * *slope * *slope;
                *value -= rate * *m / ((*v * scale).sqrt() + epsilon);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_the_paper_written_out() {
        let mut p = Parameters::<f64>::zero(1, 1);
        let mut adam = Adam::new(1, 1);
        let (mut value, mut m, mut v) = (0.0f64, 0.0f64, 0.0f64);
        for (step, slope) in (1..).zip([0.5, -0.25, 1.5, 0.0]) {
            let mut gradient = Parameters::zero(1, 1);
            gradient.decoder[0] = slope;
            adam.step(&mut p, &gradient, (0.1, step));
            m = 0.9 * m + 0.1 * slope;
            v = 0.999 * v + 0.001 * slope * slope;
            let (m, v) =
                (m / (1.0 - 0.9f64.powi(step as i32)), v / (1.0 - 0.999f64.powi(step as i32)));
            value -= 0.1 * m / (v.sqrt() + EPSILON);
            assert!((p.decoder[0] - value).abs() < 1e-12);
        }
        assert_eq!(p.encoder, [0.0]);
    }
}

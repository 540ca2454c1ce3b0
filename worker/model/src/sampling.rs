//! Tokens that are drawn: from what a model says of the next one, at a temperature.

use crate::Result;
use candle_core::{DType, Error, Tensor};
use candle_nn::ops::softmax_last_dim;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;

/// Draws tokens. Equal seed, equal draws.
pub struct Sampler {
    random: StdRng,
    temperature: f64,
}

impl Sampler {
    /// At a temperature above 0: the lower, the likelier the likeliest.
    pub fn new(seed: u64, temperature: f64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), temperature }
    }

    /// The next token by its logits, `[vocab]`.
    ///
    /// # Errors
    /// Those of the tensor library; numbers that are no probabilities.
    pub fn draw(&mut self, logits: &Tensor) -> Result<u32> {
        let likely: Vec<f32> =
            softmax_last_dim(&(logits.to_dtype(DType::F32)? / self.temperature)?)?.to_vec1()?;
        let drawn = WeightedIndex::new(&likely).map_err(Error::wrap)?.sample(&mut self.random);
        Ok(drawn as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn drawn(seed: u64, temperature: f64, count: usize) -> Vec<u32> {
        let logits = Tensor::new(&[0.0f32, 1.0, 2.0, f32::NEG_INFINITY], &Device::Cpu).unwrap();
        let mut sampler = Sampler::new(seed, temperature);
        (0..count).map(|_| sampler.draw(&logits).unwrap()).collect()
    }

    #[test]
    fn tokens_come_as_often_as_they_are_likely() {
        for temperature in [0.5, 1.0, 2.0] {
            let all = drawn(7, temperature, 4000);
            let weights = [0.0f64, 1.0, 2.0].map(|logit| (logit / temperature).exp());
            for (token, weight) in (0..).zip(weights) {
                let share = all.iter().filter(|t| **t == token).count() as f64 / 4000.0;
                let wanted = weight / weights.iter().sum::<f64>();
                assert!(
                    (share - wanted).abs() < 0.03,
                    "{token} at {temperature}: {share} {wanted}"
                );
            }
            assert!(!all.contains(&3), "what is impossible is never drawn");
        }
    }

    #[test]
    fn equal_seeds_draw_equal_tokens() {
        assert_eq!(drawn(3, 1.0, 50), drawn(3, 1.0, 50));
        assert_ne!(drawn(3, 1.0, 50), drawn(4, 1.0, 50));
        assert_eq!(drawn(3, 1e-3, 20), [2; 20], "nearly none is none");
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        let logits = Tensor::new(&[f32::NAN, 1.0], &Device::Cpu).unwrap();
        assert!(Sampler::new(0, 1.0).draw(&logits).is_err());
    }
}

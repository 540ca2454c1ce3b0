//! Activations made of a dictionary that is known: whether training finds it again is the proof
//! that it finds features.

use crate::number::{add_scaled, dot};
use crate::parameters::Parameters;
use rand::Rng;
use rand::seq::index;
use rand_distr::StandardNormal;

/// A dictionary, and how activations are made of it.
#[derive(Debug, Clone)]
pub struct Planted {
    /// Random directions of norm 1, as a decoder.
    dictionary: Parameters<f32>,
    /// Features of an activation, each with a strength between ½ and 1½.
    active: usize,
    /// Deviation of what is added to every value.
    noise: f32,
}

impl Planted {
    /// A dictionary of so many features in so many dimensions.
    pub fn new(
        (features, width): (usize, usize),
        active: usize,
        noise: f32,
        random: &mut impl Rng,
    ) -> Self {
        Self { dictionary: Parameters::random(width, features, random), active, noise }
    }

    /// So many activations, `[count, width]`.
    pub fn rows(&self, count: usize, random: &mut impl Rng) -> Vec<f32> {
        let width = self.dictionary.width;
        let mut rows: Vec<f32> = (0..count * width)
            .map(|_| self.noise * random.sample::<f32, _>(StandardNormal))
            .collect();
        for row in rows.chunks_exact_mut(width) {
            for feature in index::sample(random, self.dictionary.features(), self.active) {
                let direction = self.dictionary.direction(feature as u32);
                add_scaled(row, random.random_range(0.5..1.5), direction);
            }
        }
        rows
    }

    /// The share of the dictionary that some row of a decoder has a cosine above `bound` with.
    pub fn recovered(&self, found: &Parameters<f32>, bound: f32) -> f64 {
        let directions: Vec<&[f32]> =
            (0..found.features() as u32).map(|f| found.direction(f)).collect();
        let is_found = |feature: &u32| {
            let own = self.dictionary.direction(*feature);
            directions.iter().any(|d| dot(d, own) > bound * dot(d, d).sqrt())
        };
        let all = self.dictionary.features() as u32;
        (0..all).filter(is_found).count() as f64 / f64::from(all.max(1))
    }
}

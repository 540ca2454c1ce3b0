//! One step of training after another, wherever activations come from.

use crate::adam::Adam;
use crate::codes::Codes;
use crate::gradient::{Auxiliary, gradient};
use crate::number::Number;
use crate::parameters::Parameters;
use crate::sae::{Normalisation, Sae};
use crate::select::Select;
use crate::{Kind, Recipe, Result, SaeError, schedule};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// How fast the threshold of BatchTopK follows the batches, in a long training.
const THRESHOLD_RATE: f64 = 0.01;
/// Of a short one it follows this part of all steps: the last ones, when little changes any more.
const THRESHOLD_SHARE: f64 = 0.1;

/// An SAE in training. Inside, activations have mean square 1 about their mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Trainer<T> {
    pub(crate) recipe: Recipe,
    pub(crate) parameters: Parameters<T>,
    pub(crate) adam: Adam<T>,
    /// Tokens since each feature was active.
    pub(crate) silent: Vec<u64>,
    /// The smallest activation that BatchTopK chooses, averaged over batches; none before the first.
    pub(crate) threshold: Option<f64>,
    /// What activations are multiplied by.
    pub(crate) scale: T,
    /// Steps done.
    pub(crate) step: u64,
    /// Steps in all.
    pub(crate) steps: u64,
}

/// What a step found.
#[derive(Debug, Clone, Copy)]
pub struct Learned {
    /// The unexplained share of the variance.
    pub loss: f64,
    /// Dead features.
    pub dead: usize,
}

impl<T: Number> Trainer<T> {
    /// A new SAE for rows like `sample`, `[n, width]`, to be trained in so many steps.
    ///
    /// # Errors
    /// A recipe that cannot be followed; activations that are all alike or not finite.
    pub fn start(recipe: Recipe, sample: &[T], width: usize, steps: u64) -> Result<Self> {
        recipe.check().map_err(SaeError::recipe)?;
        let (mean, scale) = spread(sample, width)?;
        let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
        let mut parameters = Parameters::random(width, recipe.features, &mut random);
        parameters.decoder_bias = mean.into_iter().map(|m| m * scale).collect();
        Ok(Self {
            adam: Adam::new(width, recipe.features),
            silent: vec![0; recipe.features],
            threshold: None,
            step: 0,
            parameters,
            scale,
            steps,
            recipe,
        })
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Learns from rows `[n, width]`, which are scaled in place.
    ///
    /// # Errors
    /// A loss that is no longer a number.
    pub fn learn(&mut self, rows: &mut [T]) -> Result<Learned> {
        rows.iter_mut().for_each(|x| *x *= self.scale);
        let recipe = &self.recipe;
        let dead: Vec<bool> = self.silent.iter().map(|s| *s >= recipe.dead_after).collect();
        let k = (self.parameters.width / 2).max(1);
        let auxiliary = Auxiliary { dead: &dead, k, weight: recipe.auxiliary };
        let select = match recipe.kind {
            Kind::TopK => Select::TopK(recipe.k),
            Kind::BatchTopK => Select::BatchTopK(recipe.k),
        };
        let mut found = gradient(&self.parameters, rows, &select, Some(auxiliary));
        let loss = (found.loss + found.auxiliary).double();
        if !loss.is_finite() {
            return Err(SaeError::Diverged { loss, step: self.step + 1, rate: recipe.rate });
        }
        self.parameters.without_parallel(&mut found.gradient);
        let rate = schedule::rate(recipe.rate, self.step, self.steps);
        self.step += 1;
        self.adam.step(&mut self.parameters, &found.gradient, (rate, self.step));
        self.parameters.normalise_decoder();
        self.note(&found.codes);
        let dead = dead.iter().filter(|dead| **dead).count();
        Ok(Learned { loss: found.loss.double(), dead })
    }

    /// Notes which features were active, and how weakly.
    fn note(&mut self, codes: &Codes<T>) {
        self.silent.iter_mut().for_each(|silent| *silent += codes.rows() as u64);
        for feature in codes.features() {
            self.silent.get_mut(*feature as usize).into_iter().for_each(|silent| *silent = 0);
        }
        let least = codes.values().iter().copied().reduce(T::min).map(T::double);
        if let Some(least) = least {
            let before = self.threshold.unwrap_or(least);
            let rate = (1.0 / (THRESHOLD_SHARE * self.steps as f64)).clamp(THRESHOLD_RATE, 1.0);
            self.threshold = Some(before + rate * (least - before));
        }
    }

    /// The SAE as it is now, for activations as they come: the scale goes into the biases, since
    /// ReLU(s·x) = s·ReLU(x), and the decoder's rows keep norm 1.
    pub fn sae(&self) -> Sae<T> {
        let mut parameters = self.parameters.clone();
        for bias in [&mut parameters.encoder_bias, &mut parameters.decoder_bias] {
            bias.iter_mut().for_each(|b| *b /= self.scale);
        }
        let select = match self.recipe.kind {
            Kind::TopK => Select::TopK(self.recipe.k),
            Kind::BatchTopK => {
                let threshold = T::of(self.threshold.unwrap_or(0.0)) / self.scale;
                Select::Above(vec![threshold; self.recipe.features])
            }
        };
        Sae { parameters, select, normalisation: Normalisation::None }
    }
}

/// The mean of rows, `[width]`, and what makes their mean square about it 1.
fn spread<T: Number>(rows: &[T], width: usize) -> Result<(Vec<T>, T)> {
    let count = T::of((rows.len() / width.max(1)) as f64);
    let sum = crate::number::row_sum(rows, width);
    let mean: Vec<T> = sum.into_iter().map(|sum| sum / count).collect();
    let square = crate::number::variance(rows, width) / T::of(rows.len().max(1) as f64);
    if !(square > T::zero() && square.is_finite()) {
        let what = "the activations are all alike, or not finite: choose another layer or site";
        return Err(SaeError::Recipe(what.to_owned()));
    }
    Ok((mean, square.sqrt().recip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Planted;

    /// How many of 64 features end up alive, half of them being out of reach at first.
    fn alive(auxiliary: f64) -> usize {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let planted = Planted::new((64, 32), 3, 0.05, &mut random);
        let recipe = Recipe {
            features: 64,
            k: 3,
            batch: 128,
            rate: 1e-2,
            dead_after: 1_000,
            auxiliary,
            ..Recipe::default()
        };
        let sample = planted.rows(1024, &mut random);
        let mut trainer = Trainer::start(recipe, &sample, 32, 800).unwrap();
        trainer.parameters.encoder_bias[..32].fill(-3.0);
        for _ in 0..800 {
            trainer.learn(&mut planted.rows(128, &mut random)).unwrap();
        }
        trainer.silent.iter().filter(|silent| **silent < 1_000).count()
    }

    #[test]
    fn dead_features_come_back_by_their_own_loss() {
        let (with, without) = (alive(1.0 / 32.0), alive(0.0));
        assert!(without <= 35 && with >= without + 10, "{with} alive with it, {without} without");
    }

    #[test]
    fn activations_that_are_all_alike_are_refused() {
        let same = Trainer::start(Recipe::default(), &[1.5f32; 64], 8, 10);
        assert!(same.unwrap_err().to_string().contains("all alike"));
    }

    /// The scale that training works in is folded exactly: the SAE of raw rows makes of them what
    /// the one in training makes of scaled ones.
    #[test]
    fn the_scale_goes_into_the_biases() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let planted = Planted::new((30, 10), 2, 0.1, &mut random);
        let rows: Vec<f64> =
            planted.rows(300, &mut random).into_iter().map(|x| 40.0 * f64::from(x) + 7.0).collect();
        let recipe = Recipe { features: 30, k: 2, ..Recipe::default() };
        let mut trainer = Trainer::start(recipe, &rows, 10, 20).unwrap();
        for _ in 0..20 {
            trainer.learn(&mut rows.clone()).unwrap();
        }
        let (codes, made) = trainer.sae().through(&rows);
        let p = &trainer.parameters;
        let scaled: Vec<f64> = rows.iter().map(|x| x * trainer.scale).collect();
        let inner = Select::TopK(2).codes(&p.pre_activations(&p.centred(&scaled)), 30);
        assert_eq!(codes.features(), inner.features());
        for (raw, scaled) in made.iter().zip(p.decode(&inner)) {
            assert!((raw - scaled / trainer.scale).abs() < 1e-9);
        }
    }
}

//! One step of training after another, wherever activations come from.

use crate::adam::Adam;
use crate::codes::Codes;
use crate::gradient::{Auxiliary, gradient};
use crate::number::Number;
use crate::parameters::Parameters;
use crate::recipe::{Kind, Recipe};
use crate::sae::{Normalisation, Sae};
use crate::select::Select;
use crate::{Result, SaeError, schedule};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// How fast the threshold of BatchTopK follows the batches.
const THRESHOLD_RATE: f64 = 0.01;

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
        recipe.check()?;
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
            self.threshold = Some(before + THRESHOLD_RATE * (least - before));
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

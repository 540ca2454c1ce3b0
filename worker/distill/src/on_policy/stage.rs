//! Rounds one after another, and the best adapter of all.

use super::{Own, Round, Sampling, learn, own_answers};
use crate::Result;
use crate::labels::Labels;
use crate::state::{At, Passed};
use crate::train::Distilled;
use uspx_domain::{DistilRecipe, Prompt, TrainingSummary};
use uspx_model::chat::Bounds;
use uspx_model::{LoadedModel, Progress};

/// How a student learns from its own answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnPolicy {
    /// Rounds, at most: two without a better validation loss end the stage.
    pub rounds: u32,
    /// Temperature that answers are drawn at.
    pub temperature: f64,
    /// Peak learning rate, as a share of the training's before.
    pub rate: f64,
}

impl Default for OnPolicy {
    /// No rounds; if there are any, at the rate that `examples/on_policy.rs` found to cost least.
    fn default() -> Self {
        Self { rounds: 0, temperature: 1.0, rate: 0.1 }
    }
}

/// Seeds of trainings are so far apart.
const SEEDS: u64 = 1 << 16;

/// A training that goes on with rounds.
pub struct Stage {
    how: OnPolicy,
    recipe: DistilRecipe,
    at: At,
    is_over: bool,
    /// Of the last round.
    adapter: Vec<u8>,
    best: Vec<u8>,
    tokens: u64,
}

/// How the rounds went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rounds {
    /// How many there were.
    pub rounds: u32,
    /// Steps and losses; its epochs are rounds, and 0 is the training before.
    pub summary: TrainingSummary,
    /// Tokens of prompts and answers that were learned from.
    pub tokens: u64,
}

impl Stage {
    /// After a training by that recipe, of which nothing is left open
    /// ([`recipe::resolved`](crate::recipe::resolved)).
    pub fn after(made: &Distilled, (how, recipe): (OnPolicy, &DistilRecipe)) -> Self {
        Self {
            how,
            recipe: *recipe,
            at: At::start(made.summary.after),
            is_over: how.rounds == 0,
            adapter: made.adapter.clone(),
            best: made.adapter.clone(),
            tokens: 0,
        }
    }

    /// The round to come, from 1, if there is one.
    pub fn next(&self) -> Option<u32> {
        (!self.is_over).then_some(self.at.epochs + 1)
    }

    /// The adapter that the round begins with.
    pub fn adapter(&self) -> &[u8] {
        &self.adapter
    }

    /// The best so far: no worse on the validation answers than the one before the rounds.
    pub fn best(&self) -> &[u8] {
        &self.best
    }

    /// How the rounds went, if there were any.
    pub fn rounds(&self) -> Option<Rounds> {
        let (rounds, summary, tokens) = (self.at.epochs, self.at.summary(), self.tokens);
        (rounds > 0).then_some(Rounds { rounds, summary, tokens })
    }

    /// The answers of the student, with the round's adapter on it. See [`own_answers`].
    ///
    /// # Errors
    /// As [`own_answers`].
    pub fn answers(
        &self,
        student: &mut LoadedModel,
        prompts: &[Prompt],
        within: (Bounds, usize),
        progress: &dyn Progress,
    ) -> Result<Vec<Own>> {
        let seed = self.recipe.seed.wrapping_mul(SEEDS).wrapping_add(self.at.epochs.into());
        let how = Sampling { temperature: self.how.temperature, seed };
        own_answers(student, prompts, (within, how), progress)
    }

    /// The student, with the round's adapter on it, learns from its answers that the teacher labelled. Where
    /// there are none the stage is over.
    ///
    /// # Errors
    /// As [`learn`].
    pub fn learn(
        &mut self,
        student: &mut LoadedModel,
        (own, validation): (&Labels, &[Labels]),
        progress: &dyn Progress,
    ) -> Result<()> {
        if own.prompts.is_empty() {
            self.is_over = true;
            return Ok(());
        }
        let (recipe, rate) = (&self.recipe, f64::from(self.recipe.learning_rate) * self.how.rate);
        let place = (self.at.epochs, self.how.rounds);
        let round = Round { own, validation, recipe, rate, place };
        let learned = learn(student, &round, progress)?;
        self.at.step += learned.steps;
        self.tokens += learned.pace.tokens;
        let passed = self.at.judged(self.at.epochs + 1, learned.loss);
        if passed == Passed::Best {
            self.best = learned.adapter.clone();
        }
        self.adapter = learned.adapter;
        self.is_over = passed == Passed::Enough || self.at.epochs >= self.how.rounds;
        Ok(())
    }
}

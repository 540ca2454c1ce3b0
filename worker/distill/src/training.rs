//! One training: steps over batches in seeded order, judged after every epoch, the best values kept.

use crate::adam_w::AdamW;
use crate::attempt::{Attempt, Pace};
use crate::gradient::{Way, gradient};
use crate::lora::{LoraPair, attach};
use crate::losses::{Lesson, Loss};
use crate::state::{At, Held, Interrupted, Keeper, Past};
use crate::{DistillError, Result, schedule};
use candle_core::{Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::time::Instant;
use uspx_domain::{DistilRecipe, TrainingSummary};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::layers::linear::Linear;
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, Progress, batches, loss};

/// Joint norm that gradients are clipped to.
const MAX_NORM: f64 = 1.0;
/// Epochs without a better validation loss after which the training ends.
const PATIENCE: u32 = 2;
/// Padded tokens per batch where nothing is trained.
const JUDGE_TOKENS: usize = 2048;

/// What is learned and how, and what the passes are chosen by.
pub(crate) struct Data<L: Loss> {
    pub loss: L,
    pub lessons: Vec<Lesson<L::Said>>,
    pub validation: Vec<Sequence>,
}

pub(crate) struct Training<'a, L: Loss> {
    student: &'a mut LoadedModel,
    recipe: DistilRecipe,
    data: &'a Data<L>,
    optimiser: AdamW,
    /// Batches of every epoch, drawn in advance so that the number of steps is known.
    plan: Vec<Vec<Vec<usize>>>,
    /// Steps of the whole plan.
    steps: u32,
    at: At,
    pace: Pace,
    /// The best values so far.
    kept: Vec<Tensor>,
}

impl<'a, L: Loss> Training<'a, L> {
    /// Hangs new adapters on the student, and judges it as it is, unless that is known.
    pub fn start(
        student: &'a mut LoadedModel,
        data: &'a Data<L>,
        (recipe, before): (DistilRecipe, Option<f32>),
        progress: &dyn Progress,
    ) -> Result<Self> {
        let mut this = Self::new(student, data, recipe)?;
        let before = before.map_or_else(|| this.judge(progress), Ok)?;
        this.at = At { before, best: before, ..At::default() };
        this.kept = this.copy()?;
        Ok(this)
    }

    /// Goes on with one that was interrupted.
    pub fn resume(
        student: &'a mut LoadedModel,
        data: &'a Data<L>,
        found: Interrupted,
    ) -> Result<Self> {
        let Interrupted { recipe, at, values, .. } = found;
        let mut this = Self::new(student, data, recipe)?;
        this.optimiser.restore(&values.vars, values.first, values.second)?;
        (this.at, this.kept) = (at, values.kept);
        Ok(this)
    }

    fn new(student: &'a mut LoadedModel, data: &'a Data<L>, recipe: DistilRecipe) -> Result<Self> {
        let pairs = attach(student, recipe.rank as usize, f64::from(recipe.alpha), recipe.seed)?;
        let vars: Vec<Var> = pairs.into_iter().flat_map(|LoraPair { a, b, .. }| [a, b]).collect();
        let mut random = ChaCha8Rng::seed_from_u64(recipe.seed ^ 0x5eed);
        let lengths: Vec<usize> = data.lessons.iter().map(|l| l.sequence.ids.len()).collect();
        let draw = |_| schedule::epoch(&lengths, recipe.batch_tokens as usize, &mut random);
        let plan: Vec<Vec<Vec<usize>>> = (0..recipe.epochs).map(draw).collect();
        let steps = plan.iter().map(|e| e.len() as u32).sum();
        let (optimiser, at, kept) = (AdamW::new(vars)?, At::default(), Vec::new());
        let pace = Pace::default();
        Ok(Self { student, recipe, data, optimiser, plan, steps, at, pace, kept })
    }

    /// Trains to the end. The state is kept every so often, and where the end is asked for before.
    pub fn run(
        mut self,
        past: Past<'_>,
        keeper: &mut Keeper<'_>,
        progress: &dyn Progress,
    ) -> Result<Attempt> {
        match self.epochs(past, keeper, progress) {
            Err(error) if error.is_stopped() => {
                keeper.keep(self.held(past));
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => {
                let At { step: steps, before, best: after, best_epoch, .. } = self.at;
                let summary = TrainingSummary { steps, before, after, best_epoch };
                let vars = self.optimiser.vars().to_vec();
                let (pace, recipe) = (self.pace, self.recipe);
                Ok(Attempt { vars, values: self.kept, summary, pace, recipe })
            }
        }
    }

    fn epochs(
        &mut self,
        past: Past<'_>,
        keeper: &mut Keeper<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let plan = std::mem::take(&mut self.plan);
        for (epoch, batches) in (1..).zip(&plan).skip(self.at.epochs as usize) {
            for members in batches.iter().skip(self.at.batches as usize) {
                self.learn(members)?;
                if keeper.is_due() {
                    keeper.keep(self.held(past));
                }
                progress.report(u64::from(self.at.step), u64::from(self.steps))?;
            }
            let now = self.judge(progress)?;
            tracing::debug!(epoch, validation = now, "epoch done");
            (self.at.epochs, self.at.batches) = (epoch, 0);
            if now < self.at.best {
                (self.at.best, self.at.best_epoch, self.kept) = (now, epoch, self.copy()?);
            } else if epoch >= self.at.best_epoch + PATIENCE {
                break;
            }
        }
        Ok(())
    }

    /// All that it would need to go on.
    fn held<'s>(&'s self, past: Past<'s>) -> Held<'s> {
        let (vars, (first, second)) = (self.optimiser.vars(), self.optimiser.moments());
        Held { past, recipe: self.recipe, at: self.at, vars, first, second, kept: &self.kept }
    }

    /// The variables' present values.
    fn copy(&self) -> Result<Vec<Tensor>> {
        let copies = self.optimiser.vars().iter().map(|v| v.as_tensor().copy());
        Ok(copies.collect::<candle_core::Result<_>>()?)
    }

    /// One step on one batch.
    fn learn(&mut self, members: &[usize]) -> Result<()> {
        let start = Instant::now();
        let lessons: Vec<&Lesson<L::Said>> =
            members.iter().filter_map(|i| self.data.lessons.get(*i)).collect();
        let sequences: Vec<&Sequence> = lessons.iter().map(|l| &l.sequence).collect();
        let batch = Batch::new(&sequences)?;
        let transformer = &self.student.transformer;
        let weight = self.recipe.teacher_weight;
        let loss = |logits: &Tensor| -> Result<Tensor> {
            let loss = self.data.loss.loss(logits, &batch.targets, &lessons, weight)?;
            Ok((loss / batch.targets.len() as f64)?)
        };
        let how = (&batch, self.optimiser.vars(), Way::of(transformer));
        let (value, gradients) = gradient(transformer, how, loss)?;
        let (step, peak) = (self.at.step + 1, self.recipe.learning_rate);
        tracing::debug!(step, loss = value, ?members, "step");
        if !value.is_finite() {
            return Err(DistillError::Diverged { loss: value, step, rate: peak });
        }
        let shrink = schedule::shrink(&gradients, self.optimiser.vars(), MAX_NORM)?;
        let rate = schedule::rate(f64::from(peak), self.at.step, self.steps);
        self.optimiser.step(&gradients, (step, rate, shrink))?;
        (self.at.step, self.at.batches) = (step, self.at.batches + 1);
        let tokens = sequences.iter().map(|s| s.ids.len() as u64).sum();
        self.pace = self.pace.and(Pace { tokens, seconds: start.elapsed().as_secs_f64() });
        Ok(())
    }

    /// The student's cross-entropy on the validation answers, nats per response token.
    fn judge(&self, progress: &dyn Progress) -> Result<f32> {
        let (mut nats, mut tokens) = (0.0, 0);
        // A forward pass of it keeps no intermediate values.
        let transformer = self.student.transformer.mapped(Linear::frozen)?;
        for (_, batch) in batches(&self.data.validation, JUDGE_TOKENS)? {
            let frame = transformer.frame(&batch)?;
            let x = transformer.forward(&batch, &frame, &mut NoTaps)?;
            let nll = loss::token_nll(&transformer.logits(&x, &batch.predicting)?, &batch.targets)?;
            nats += nll.sum_all()?.to_scalar::<f32>()?;
            tokens += batch.targets.len();
            progress.report(u64::from(self.at.step), u64::from(self.steps))?;
        }
        Ok(nats / tokens.max(1) as f32)
    }
}

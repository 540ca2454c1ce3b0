//! The training loop: examples in, the best adapter out.

use crate::align::{Example, example, text_example};
use crate::labels::{Labels, vocabulary};
use crate::lora::{LoraPair, attach};
use crate::loss::{Targets, soft_cross_entropy};
use crate::{DistillError, Result, recipe, save_adapter, schedule};
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use uspx_domain::{DistilRecipe, TrainingSummary};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::taps::{NoTaps, Projection};
use uspx_model::transformer::Transformer;
use uspx_model::{LoadedModel, Progress, batches, loss};

/// Joint norm that gradients are clipped to.
const MAX_NORM: f64 = 1.0;
/// Epochs without a better validation loss after which the training ends.
const PATIENCE: u32 = 2;
/// Padded tokens per batch where nothing is trained.
const JUDGE_TOKENS: usize = 2048;

/// Trains an adapter for `student` and leaves the best one attached.
///
/// Only response tokens count in the loss. After every epoch the student's own cross-entropy on the
/// validation answers decides whether its adapter is kept; two epochs without a better one end the
/// training. Where passes beyond the best one were made, it is trained anew: with a third of the rate,
/// where the recipe leaves that open; then with as many passes as gained anything, in which the rate
/// falls to its end. The best of the adapters is kept. `progress` counts the steps of each.
///
/// # Errors
/// A recipe that cannot be followed, labels without an answer, a loss that is no longer a number,
/// or what the model and the progress say.
pub fn distil(
    student: &mut LoadedModel,
    train: &[Labels],
    validation: &[Labels],
    recipe: &DistilRecipe,
    progress: &dyn Progress,
) -> Result<(Vec<u8>, TrainingSummary)> {
    recipe::check(recipe)?;
    let rate_is_open = recipe.learning_rate == 0.0;
    let recipe = &recipe::resolved(recipe, student.transformer.config().hidden);
    let validation =
        examples(student, validation, Reading { what: "validation", aligned: false }, progress)?;
    let validation = validation.into_iter().map(|l| l.sequence).collect();
    // Alignment is dear; who learns from text alone does without.
    let aligned = recipe.teacher_weight > 0.0;
    let examples = examples(student, train, Reading { what: "training", aligned }, progress)?;
    let data = Data { examples, validation };
    let mut best = Training::start(student, &data, recipe)?.run(progress)?;
    let slower = rate_is_open.then(|| slower(recipe)).filter(|_| went_too_far(recipe, &best));
    if let Some(slower) = &slower {
        best = best.or(Training::start(student, &data, slower)?.run(progress)?);
    }
    if let Some(shorter) = shorter(&best) {
        best = best.or(Training::start(student, &data, &shorter)?.run(progress)?);
    }
    best.attach()?;
    Ok((save_adapter(student, recipe.rank, recipe.alpha)?, best.summary))
}

/// What is learned, and what the passes are chosen by.
struct Data {
    examples: Vec<Example>,
    validation: Vec<Sequence>,
}

/// A training's end.
struct Trained {
    /// The adapters that hang on the student.
    vars: Vec<Var>,
    /// Their values after the best pass.
    values: Vec<Tensor>,
    summary: TrainingSummary,
    /// How they came about.
    recipe: DistilRecipe,
}

impl Trained {
    /// The better of this and a second one, whose adapters hang on the student now; the steps are those
    /// of both.
    fn or(self, second: Self) -> Self {
        let steps = self.summary.steps + second.summary.steps;
        let vars = second.vars.clone();
        let better = if second.summary.after < self.summary.after { second } else { self };
        Self { vars, summary: TrainingSummary { steps, ..better.summary }, ..better }
    }

    /// Gives the student's adapters the best values.
    fn attach(&self) -> Result<()> {
        for (var, value) in self.vars.iter().zip(&self.values) {
            var.set(value)?;
        }
        Ok(())
    }
}

/// Whether a training made passes that only cost.
fn went_too_far(recipe: &DistilRecipe, done: &Trained) -> bool {
    done.summary.best_epoch < recipe.epochs
}

/// The recipe with a third of the rate: what suits a width may be too much for few prompts, or for a
/// student that knows most of it already.
fn slower(recipe: &DistilRecipe) -> DistilRecipe {
    DistilRecipe { learning_rate: recipe.learning_rate / 3.0, ..*recipe }
}

/// The recipe of a training with the passes that it gained by, where it went on beyond them: the rate then
/// falls to its end within them. None where it did, or nothing was gained.
fn shorter(done: &Trained) -> Option<DistilRecipe> {
    let passes = done.summary.best_epoch;
    let too_far = passes > 0 && went_too_far(&done.recipe, done);
    too_far.then_some(DistilRecipe { epochs: passes, ..done.recipe })
}

/// How labels are read.
struct Reading {
    what: &'static str,
    /// Whether the teacher's probabilities are wanted.
    aligned: bool,
}

/// Prompts aligned between two beats.
const PER_BEAT: usize = 32;

/// Every prompt of `labels` as the student learns it.
fn examples(
    student: &LoadedModel,
    labels: &[Labels],
    how: Reading,
    progress: &dyn Progress,
) -> Result<Vec<Example>> {
    let own = vocabulary(&student.chat);
    let mut examples = Vec::new();
    for labels in labels {
        for prompt in &labels.prompts {
            examples.push(match how.aligned {
                true => example(labels, prompt, &student.chat, own)?,
                false => text_example(prompt, &student.chat)?,
            });
            if examples.len() % PER_BEAT == 0 {
                // No step is done yet, nor their number known.
                progress.report(0, 1)?;
            }
        }
    }
    examples.retain(|l| l.sequence.response_len() > 0);
    if examples.is_empty() { Err(DistillError::Empty(how.what)) } else { Ok(examples) }
}

struct Training<'a> {
    student: &'a mut LoadedModel,
    recipe: &'a DistilRecipe,
    data: &'a Data,
    vars: Vec<Var>,
    optimiser: AdamW,
    /// Batches of every epoch, drawn in advance so that the number of steps is known.
    plan: Vec<Vec<Vec<usize>>>,
    /// Steps of the whole plan.
    steps: u32,
    /// Steps taken.
    step: u32,
}

impl<'a> Training<'a> {
    fn start(
        student: &'a mut LoadedModel,
        data: &'a Data,
        recipe: &'a DistilRecipe,
    ) -> Result<Self> {
        let pairs = attach(student, recipe.rank as usize, f64::from(recipe.alpha), recipe.seed)?;
        let vars: Vec<Var> = pairs.into_iter().flat_map(|LoraPair { a, b, .. }| [a, b]).collect();
        let params = ParamsAdamW { lr: 0.0, weight_decay: 0.0, ..ParamsAdamW::default() };
        let optimiser = AdamW::new(vars.clone(), params)?;
        let mut random = ChaCha8Rng::seed_from_u64(recipe.seed ^ 0x5eed);
        let draw = |_| schedule::epoch(&data.examples, recipe.batch_tokens as usize, &mut random);
        let plan: Vec<Vec<Vec<usize>>> = (0..recipe.epochs).map(draw).collect();
        let steps = plan.iter().map(|e| e.len() as u32).sum();
        Ok(Self { student, recipe, data, vars, optimiser, plan, steps, step: 0 })
    }

    fn run(mut self, progress: &dyn Progress) -> Result<Trained> {
        let before = self.judge(progress)?;
        let (mut best, mut best_epoch, mut kept) = (before, 0, self.copy()?);
        for (epoch, batches) in (1..).zip(std::mem::take(&mut self.plan)) {
            self.epoch(&batches, progress)?;
            let now = self.judge(progress)?;
            tracing::debug!(epoch, validation = now, "epoch done");
            if now < best {
                (best, best_epoch, kept) = (now, epoch, self.copy()?);
            } else if epoch >= best_epoch + PATIENCE {
                break;
            }
        }
        let summary = TrainingSummary { steps: self.step, before, after: best, best_epoch };
        Ok(Trained { vars: self.vars, values: kept, summary, recipe: *self.recipe })
    }

    /// The variables' present values.
    fn copy(&self) -> Result<Vec<Tensor>> {
        Ok(self.vars.iter().map(|v| v.as_tensor().copy()).collect::<candle_core::Result<_>>()?)
    }

    fn epoch(&mut self, batches: &[Vec<usize>], progress: &dyn Progress) -> Result<()> {
        for members in batches {
            self.learn(members)?;
            progress.report(u64::from(self.step), u64::from(self.steps))?;
        }
        Ok(())
    }

    /// One step on one batch.
    fn learn(&mut self, members: &[usize]) -> Result<()> {
        let examples: Vec<&Example> =
            members.iter().filter_map(|i| self.data.examples.get(*i)).collect();
        let sequences: Vec<&Sequence> = examples.iter().map(|l| &l.sequence).collect();
        let batch = Batch::new(&sequences)?;
        let transformer = &self.student.transformer;
        let frame = transformer.frame(&batch)?;
        let x = transformer.forward(&batch, &frame, &mut NoTaps)?;
        let logits = transformer.logits(&x, &batch.predicting)?;
        let soft: Vec<&[(u32, f32)]> =
            examples.iter().flat_map(|l| l.soft.iter().map(Vec::as_slice)).collect();
        let targets =
            Targets::new(&batch.targets, &soft, self.recipe.teacher_weight, transformer.device())?;
        let loss = (soft_cross_entropy(&logits, &targets)? / batch.targets.len() as f64)?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            return Err(DistillError::Diverged {
                loss: value,
                step: self.step + 1,
                rate: self.recipe.learning_rate,
            });
        }
        let mut gradients = loss.backward()?;
        schedule::clip(&mut gradients, &self.vars, MAX_NORM)?;
        self.optimiser.set_learning_rate(schedule::rate(
            f64::from(self.recipe.learning_rate),
            self.step,
            self.steps,
        ));
        self.optimiser.step(&gradients)?;
        self.step += 1;
        Ok(())
    }

    /// The student's cross-entropy on the validation answers, nats per response token.
    fn judge(&self, progress: &dyn Progress) -> Result<f32> {
        let (mut nats, mut tokens) = (0.0, 0);
        let transformer = frozen(&self.student.transformer)?;
        for (_, batch) in batches(&self.data.validation, JUDGE_TOKENS)? {
            let frame = transformer.frame(&batch)?;
            let x = transformer.forward(&batch, &frame, &mut NoTaps)?;
            let nll = loss::token_nll(&transformer.logits(&x, &batch.predicting)?, &batch.targets)?;
            nats += nll.sum_all()?.to_scalar::<f32>()?;
            tokens += batch.targets.len();
            progress.report(u64::from(self.step), u64::from(self.steps))?;
        }
        Ok(nats / tokens.max(1) as f32)
    }
}

/// The same model with its adapters merged and nothing to differentiate: a forward pass then keeps
/// no intermediate values.
fn frozen(model: &Transformer) -> Result<Transformer> {
    let mut copy = model.clone();
    for layer in 0..copy.layers() {
        for projection in Projection::DENSE {
            let linear = copy.linear_mut(layer, projection)?;
            linear.set_weight(linear.merged()?.detach());
            linear.adapter = None;
        }
    }
    Ok(copy)
}

//! The training loop: examples in, the best adapter out.

use crate::align::{Example, example, text_example};
use crate::labels::{Labels, vocabulary};
use crate::lora::{LoraPair, attach};
use crate::loss::{Targets, soft_cross_entropy};
use crate::{DistillError, Result, recipe, save_adapter, schedule};
use candle_core::Var;
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
/// training. `progress` counts steps.
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
    let validation =
        examples(student, validation, Reading { what: "validation", aligned: false }, progress)?;
    let validation = validation.into_iter().map(|l| l.sequence).collect();
    // Alignment is dear; who learns from text alone does without.
    let aligned = recipe.teacher_weight > 0.0;
    let examples = examples(student, train, Reading { what: "training", aligned }, progress)?;
    Training::start(student, examples, validation, recipe)?.run(progress)
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
    examples: Vec<Example>,
    validation: Vec<Sequence>,
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
        examples: Vec<Example>,
        validation: Vec<Sequence>,
        recipe: &'a DistilRecipe,
    ) -> Result<Self> {
        let pairs = attach(student, recipe.rank as usize, f64::from(recipe.alpha), recipe.seed)?;
        let vars: Vec<Var> = pairs.into_iter().flat_map(|LoraPair { a, b, .. }| [a, b]).collect();
        let params = ParamsAdamW { lr: 0.0, weight_decay: 0.0, ..ParamsAdamW::default() };
        let optimiser = AdamW::new(vars.clone(), params)?;
        let mut random = ChaCha8Rng::seed_from_u64(recipe.seed ^ 0x5eed);
        let draw = |_| schedule::epoch(&examples, recipe.batch_tokens as usize, &mut random);
        let plan: Vec<Vec<Vec<usize>>> = (0..recipe.epochs).map(draw).collect();
        let steps = plan.iter().map(|e| e.len() as u32).sum();
        Ok(Self { student, recipe, examples, validation, vars, optimiser, plan, steps, step: 0 })
    }

    fn run(mut self, progress: &dyn Progress) -> Result<(Vec<u8>, TrainingSummary)> {
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
        for (var, value) in self.vars.iter().zip(&kept) {
            var.set(value)?;
        }
        let summary = TrainingSummary { steps: self.step, before, after: best, best_epoch };
        Ok((save_adapter(self.student, self.recipe.rank, self.recipe.alpha)?, summary))
    }

    /// The variables' present values.
    fn copy(&self) -> Result<Vec<candle_core::Tensor>> {
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
            members.iter().filter_map(|i| self.examples.get(*i)).collect();
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
        for (_, batch) in batches(&self.validation, JUDGE_TOKENS)? {
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

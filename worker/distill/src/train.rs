//! The training loop: examples in, the best adapter out.

use crate::attempt::Attempt;
use crate::gradient::{Way, gradient};
use crate::labels::{Labels, vocabulary};
use crate::lora::{LoraPair, attach};
use crate::losses::{Alm, Gold, Hybrid, Lesson, Loss, lesson, text_lesson};
use crate::{DistillError, Result, recipe, save_adapter, schedule};
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use uspx_domain::{DistilLoss, DistilRecipe, TrainingSummary};
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

/// An adapter and how it was trained.
type Trained = (Vec<u8>, TrainingSummary);

/// Trains by one loss, as [`distil`] says.
type Train =
    fn(&mut LoadedModel, &[Labels], &[Labels], &DistilRecipe, &dyn Progress) -> Result<Trained>;

/// Every loss there is.
const ALL: &[(DistilLoss, Train)] =
    &[(Hybrid::ROW, by::<Hybrid>), (Alm::ROW, by::<Alm>), (Gold::ROW, by::<Gold>)];

/// Trains an adapter for `student` and leaves the best one attached.
///
/// Only response tokens count in the loss. After every epoch the student's own cross-entropy on the
/// validation answers decides whether its adapter is kept; two epochs without a better one end the
/// training. Where passes beyond the best one were made, it is trained anew: with a third of the rate,
/// where the recipe leaves that open; then with as many passes as gained anything. The best of the
/// adapters is kept. `progress` counts the steps of each.
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
) -> Result<Trained> {
    recipe::check(recipe)?;
    let found = ALL.iter().find(|(loss, _)| *loss == recipe.loss);
    let why = || format!("this uspx cannot train by {}: upgrade", recipe.loss);
    let (_, train_by) = found.ok_or_else(|| DistillError::Recipe(why()))?;
    train_by(student, train, validation, recipe, progress)
}

fn by<L: Loss>(
    student: &mut LoadedModel,
    train: &[Labels],
    validation: &[Labels],
    recipe: &DistilRecipe,
    progress: &dyn Progress,
) -> Result<Trained> {
    let validation = lessons::<L>(student, validation, (None, "validation"), progress)?;
    let validation = validation.into_iter().map(|l| l.sequence).collect();
    let loss = L::new(train, &student.chat);
    // Alignment is dear; who learns from text alone does without.
    let heard = (recipe.teacher_weight > 0.0).then_some(&loss);
    let lessons = lessons(student, train, (heard, "training"), progress)?;
    let data = Data { loss, lessons, validation };
    let rate_is_open = recipe.learning_rate == 0.0;
    let recipe = recipe::resolved(recipe, student.transformer.config().hidden);
    let mut best = Training::start(student, &data, recipe)?.run(progress)?;
    if let Some(slower) = best.slower().filter(|_| rate_is_open) {
        best = best.or(Training::start(student, &data, slower)?.run(progress)?);
    }
    if let Some(shorter) = best.shorter() {
        best = best.or(Training::start(student, &data, shorter)?.run(progress)?);
    }
    best.attach()?;
    Ok((save_adapter(student, recipe.rank, recipe.alpha)?, best.summary))
}

/// What is learned and how, and what the passes are chosen by.
struct Data<L: Loss> {
    loss: L,
    lessons: Vec<Lesson<L::Said>>,
    validation: Vec<Sequence>,
}

/// Prompts aligned between two beats.
const PER_BEAT: usize = 32;

/// Every prompt of `labels` as the student learns it: by a loss that hears the teacher, or from its
/// text. `what` they are for.
fn lessons<L: Loss>(
    student: &LoadedModel,
    labels: &[Labels],
    (loss, what): (Option<&L>, &'static str),
    progress: &dyn Progress,
) -> Result<Vec<Lesson<L::Said>>> {
    let own = vocabulary(&student.chat);
    let mut lessons = Vec::new();
    for labels in labels {
        for prompt in &labels.prompts {
            lessons.push(match loss {
                Some(loss) => lesson(loss, labels, prompt, &student.chat, own)?,
                None => text_lesson(prompt, &student.chat)?,
            });
            if lessons.len() % PER_BEAT == 0 {
                // No step is done yet, nor their number known.
                progress.report(0, 1)?;
            }
        }
    }
    lessons.retain(|l| l.sequence.response_len() > 0);
    if lessons.is_empty() { Err(DistillError::Empty(what)) } else { Ok(lessons) }
}

struct Training<'a, L: Loss> {
    student: &'a mut LoadedModel,
    recipe: DistilRecipe,
    data: &'a Data<L>,
    vars: Vec<Var>,
    optimiser: AdamW,
    /// Batches of every epoch, drawn in advance so that the number of steps is known.
    plan: Vec<Vec<Vec<usize>>>,
    /// Steps of the whole plan.
    steps: u32,
    /// Steps taken.
    step: u32,
}

impl<'a, L: Loss> Training<'a, L> {
    fn start(
        student: &'a mut LoadedModel,
        data: &'a Data<L>,
        recipe: DistilRecipe,
    ) -> Result<Self> {
        let pairs = attach(student, recipe.rank as usize, f64::from(recipe.alpha), recipe.seed)?;
        let vars: Vec<Var> = pairs.into_iter().flat_map(|LoraPair { a, b, .. }| [a, b]).collect();
        let params = ParamsAdamW { lr: 0.0, weight_decay: 0.0, ..ParamsAdamW::default() };
        let optimiser = AdamW::new(vars.clone(), params)?;
        let mut random = ChaCha8Rng::seed_from_u64(recipe.seed ^ 0x5eed);
        let lengths: Vec<usize> = data.lessons.iter().map(|l| l.sequence.ids.len()).collect();
        let draw = |_| schedule::epoch(&lengths, recipe.batch_tokens as usize, &mut random);
        let plan: Vec<Vec<Vec<usize>>> = (0..recipe.epochs).map(draw).collect();
        let steps = plan.iter().map(|e| e.len() as u32).sum();
        Ok(Self { student, recipe, data, vars, optimiser, plan, steps, step: 0 })
    }

    fn run(mut self, progress: &dyn Progress) -> Result<Attempt> {
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
        Ok(Attempt { vars: self.vars, values: kept, summary, recipe: self.recipe })
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
        let way = Way::of(transformer);
        let (value, mut gradients) = gradient(transformer, (&batch, &self.vars, way), loss)?;
        tracing::debug!(step = self.step + 1, loss = value, ?members, "step");
        if !value.is_finite() {
            return Err(DistillError::Diverged {
                loss: value,
                step: self.step + 1,
                rate: self.recipe.learning_rate,
            });
        }
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
        // A forward pass of it keeps no intermediate values.
        let transformer = self.student.transformer.mapped(Linear::frozen)?;
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

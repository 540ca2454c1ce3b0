//! A student with new adapters and their optimiser: one step on one batch, and what the student is worth on
//! the validation answers.

use crate::adam_w::{AdamW, set};
use crate::attempt::{Attempt, Pace};
use crate::gradient::{Way, gradient};
use crate::lora::{LoraPair, attach, going_on};
use crate::losses::{Lesson, Loss};
use crate::{DistillError, Result, schedule};
use candle_core::{DType, Device, Tensor, Var};
use std::time::Instant;
use uspx_domain::{DistilRecipe, TrainingSummary};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::cuts::CutTaps;
use uspx_model::layers::linear::Linear;
use uspx_model::{LoadedModel, batches};

/// Joint norm that gradients are clipped to.
const MAX_NORM: f64 = 1.0;
/// Padded tokens per batch where nothing is trained.
const JUDGE_TOKENS: usize = 2048;

/// What is learned, and what the passes are chosen by.
pub(crate) struct Data<L: Loss> {
    pub loss: L,
    pub lessons: Vec<Lesson<L::Said>>,
    pub validation: Vec<Sequence>,
}

impl<L: Loss> Data<L> {
    /// The batches of every epoch, drawn in advance so that the number of steps is known.
    pub fn plan(&self, recipe: &DistilRecipe) -> Vec<Vec<Vec<usize>>> {
        let lengths: Vec<usize> = self.lessons.iter().map(|l| l.sequence.ids.len()).collect();
        schedule::epochs(&lengths, recipe)
    }
}

/// Who learns.
pub(crate) struct Learner<'a, L: Loss> {
    student: &'a mut LoadedModel,
    data: &'a Data<L>,
    /// How.
    pub recipe: DistilRecipe,
    /// What moves the adapters.
    pub optimiser: AdamW,
    /// How fast it went so far.
    pub pace: Pace,
}

impl<'a, L: Loss> Learner<'a, L> {
    /// Hangs new adapters on the student.
    pub fn new(
        student: &'a mut LoadedModel,
        data: &'a Data<L>,
        recipe: DistilRecipe,
    ) -> Result<Self> {
        let vars = hung(student, &recipe)?.into_iter().flat_map(|LoraPair { a, b, .. }| [a, b]);
        Self::of(vars.collect(), (student, data, recipe))
    }

    /// Goes on from the adapters that hang on the student.
    pub fn going_on(
        student: &'a mut LoadedModel,
        data: &'a Data<L>,
        recipe: DistilRecipe,
    ) -> Result<Self> {
        let pairs = going_on(student)?.into_iter().flat_map(|LoraPair { a, b, .. }| [a, b]);
        Self::of(pairs.collect(), (student, data, recipe))
    }

    /// The same with A of every adapter left as it is drawn.
    pub fn of_b(
        student: &'a mut LoadedModel,
        data: &'a Data<L>,
        recipe: DistilRecipe,
    ) -> Result<Self> {
        let pairs = hung(student, &recipe)?;
        for LoraPair { layer, projection, a, .. } in &pairs {
            let linear = student.transformer.linear_mut(*layer, *projection)?;
            if let Some(adapter) = &mut linear.adapter {
                adapter.a = a.as_detached_tensor();
            }
        }
        Self::of(pairs.into_iter().map(|pair| pair.b).collect(), (student, data, recipe))
    }

    fn of(
        vars: Vec<Var>,
        (student, data, recipe): (&'a mut LoadedModel, &'a Data<L>, DistilRecipe),
    ) -> Result<Self> {
        Ok(Self { student, data, recipe, optimiser: AdamW::new(vars)?, pace: Pace::default() })
    }

    /// One step on the lessons of those places, without what is cut: which step of the optimiser's it is,
    /// from 1, and its learning rate.
    pub fn step(
        &mut self,
        members: &[usize],
        (step, rate): (u32, f64),
        cut: &CutTaps,
    ) -> Result<()> {
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
        let (value, gradients) = gradient(transformer, how, cut, loss)?;
        tracing::debug!(step, loss = value, ?members, "step");
        if !value.is_finite() {
            let rate = self.recipe.learning_rate;
            return Err(DistillError::Diverged { loss: value, step, rate });
        }
        let shrink = schedule::shrink(&gradients, self.optimiser.vars(), MAX_NORM)?;
        self.optimiser.step(&gradients, (step, rate, shrink))?;
        let tokens = sequences.iter().map(|s| s.ids.len() as u64).sum();
        self.pace = self.pace.and(Pace { tokens, seconds: start.elapsed().as_secs_f64() });
        Ok(())
    }

    /// The attempt that this was: how it went, and the best values on the way.
    pub fn attempt(self, summary: TrainingSummary, values: Vec<Tensor>) -> Attempt {
        let vars = self.optimiser.vars().to_vec();
        Attempt { vars, values, summary, pace: self.pace, recipe: self.recipe }
    }

    /// Gives the adapters these values.
    pub fn set(&self, values: &[Tensor]) -> Result<()> {
        set(self.optimiser.vars(), values)
    }

    /// The adapters' present values, in main memory: a GPU has none to spare for them.
    pub fn copy(&self) -> Result<Vec<Tensor>> {
        let copy = |v: &Var| match v.device() {
            Device::Cpu => v.as_tensor().copy(),
            _ => v.as_detached_tensor().to_device(&Device::Cpu),
        };
        let copies = self.optimiser.vars().iter().map(copy);
        Ok(copies.collect::<candle_core::Result<_>>()?)
    }

    /// The student's cross-entropy on the validation answers without what is cut, nats per response token.
    /// `beat` is told of every batch.
    pub fn judge(&self, cut: &CutTaps, beat: impl Fn() -> Result<()>) -> Result<f32> {
        let (mut nats, mut tokens) = (0.0, 0);
        // A forward pass of it keeps no intermediate values.
        let transformer = self.student.transformer.mapped(Linear::frozen)?;
        for (_, batch) in batches(&self.data.validation, JUDGE_TOKENS)? {
            let frame = transformer.frame(&batch)?;
            let x = transformer.forward(&batch, &frame, &mut cut.clone())?;
            let nll =
                transformer.nll(&x, &batch.predicting, &batch.targets)?.to_dtype(DType::F32)?;
            nats += nll.sum_all()?.to_scalar::<f32>()?;
            tokens += batch.targets.len();
            beat()?;
        }
        Ok(nats / tokens.max(1) as f32)
    }
}

/// The recipe's adapters, hung on the student.
fn hung(student: &mut LoadedModel, recipe: &DistilRecipe) -> Result<Vec<LoraPair>> {
    attach(student, recipe.rank as usize, f64::from(recipe.alpha), recipe.seed)
}

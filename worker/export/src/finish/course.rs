//! The finish's loop: steps over the prompts that teach, and after each pass a look at those that judge.

use super::latent::Latent;
use super::{FinishReport, Finished, LEAST_PROMPTS};
use crate::coded::Moved;
use crate::{ExportError, Result};
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use uspx_distill::schedule;
use uspx_model::batch::{Batch, Sequence};
use uspx_model::budget::{FINISH_LOGITS, FINISH_TOKENS};
use uspx_model::taps::NoTaps;
use uspx_model::transformer::Transformer;
use uspx_model::{Progress, loss};

/// Of so many prompts, one judges.
const JUDGING: usize = 10;
/// Peak learning rate of the factors on steps: a share of them.
const STEP_RATE: f64 = 3e-3;
/// That of the places, in codes. At three times as much, codes flip to and fro, and the student is worse off than
/// before.
const PLACE_RATE: f64 = 1e-3;
/// The seed of the order of prompts.
const SEED: u64 = 0xf151;

/// Sequences that teach, or those that judge.
fn split(sequences: &[Sequence], judging: bool) -> Vec<&Sequence> {
    let all = sequences.iter().filter(|s| s.ids.len() > 1).enumerate();
    all.filter(|(at, _)| (at % JUDGING == 0) == judging).map(|(_, s)| s).collect()
}

/// Tokens that run together.
fn tokens(vocab: usize) -> usize {
    (FINISH_LOGITS / vocab.max(1)).clamp(64, FINISH_TOKENS)
}

/// The steps of each pass: sequences that teach, by index. Empty where there are too few prompts.
pub(super) fn plan(sequences: &[Sequence], passes: u32, vocab: usize) -> Vec<Vec<Vec<usize>>> {
    if sequences.len() < LEAST_PROMPTS {
        return Vec::new();
    }
    let lengths: Vec<usize> = split(sequences, false).iter().map(|s| s.ids.len()).collect();
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    (0..passes).map(|_| schedule::epoch(&lengths, tokens(vocab), &mut random)).collect()
}

/// A finish on its way.
pub(super) struct Course<'a> {
    /// The student of floats.
    floats: Transformer,
    latents: Vec<Latent<'a>>,
    teaching: Vec<&'a Sequence>,
    judging: Vec<Batch>,
    places: AdamW,
    factors: AdamW,
}

impl<'a> Course<'a> {
    pub fn start(
        floats: Transformer,
        latents: Vec<Latent<'a>>,
        sequences: &'a [Sequence],
    ) -> Result<Self> {
        let judging: Vec<Sequence> = split(sequences, true).into_iter().cloned().collect();
        let judging = uspx_model::batches(&judging, tokens(floats.config().vocab))?;
        let adam = |vars: Vec<Var>| {
            AdamW::new(vars, ParamsAdamW { lr: 0.0, weight_decay: 0.0, ..ParamsAdamW::default() })
        };
        let factors = latents.iter().flat_map(|l| [Some(&l.steps), l.offsets.as_ref()]).flatten();
        Ok(Self {
            places: adam(latents.iter().map(|l| l.places.clone()).collect())?,
            factors: adam(factors.cloned().collect())?,
            teaching: split(sequences, false),
            judging: judging.into_iter().map(|(_, batch)| batch).collect(),
            floats,
            latents,
        })
    }

    pub fn run(
        mut self,
        plan: &[Vec<Vec<usize>>],
        progress: &dyn Progress,
    ) -> Result<(FinishReport, Vec<Finished>)> {
        let all = plan.iter().map(Vec::len).sum::<usize>() as u32;
        let before = self.judge()?;
        let (mut after, mut best_pass, mut kept, mut step) = (before, 0, self.moved()?, 0);
        for (pass, batches) in (1..).zip(plan) {
            for members in batches {
                self.learn(members, schedule::rate(1.0, step, all))?;
                step += 1;
                progress.report(u64::from(step), u64::from(all))?;
            }
            let now = self.judge()?;
            tracing::debug!(pass, divergence = now, "pass of the finish done");
            if now < after {
                (after, best_pass, kept) = (now, pass, self.moved()?);
            }
        }
        let recoded = self.recoded(&kept);
        let report = FinishReport { steps: step, before, after, best_pass, recoded };
        Ok((report, if best_pass == 0 { Vec::new() } else { self.finished(kept) }))
    }

    /// One step at a share of the peak rates.
    fn learn(&mut self, members: &[usize], rate: f64) -> Result<()> {
        let sequences: Vec<&Sequence> =
            members.iter().filter_map(|i| self.teaching.get(*i).copied()).collect();
        let batch = Batch::new(&sequences)?;
        let student = self.student(Latent::weight)?;
        let loss = self.divergence(&student, &batch)?.mean_all()?;
        let value: f32 = loss.to_scalar()?;
        tracing::trace!(loss = value, "step of the finish");
        if !value.is_finite() {
            return Err(ExportError::NotFinite("the finish's loss".into()));
        }
        let gradients = loss.backward()?;
        self.places.set_learning_rate(PLACE_RATE * rate);
        self.factors.set_learning_rate(STEP_RATE * rate);
        self.places.step(&gradients)?;
        self.factors.step(&gradients)?;
        Ok(())
    }

    /// Divergence on the prompts that judge of what the file would hold, nats per token.
    fn judge(&self) -> Result<f64> {
        let student = self.student(Latent::stored)?;
        let (mut nats, mut rows) = (0.0, 0);
        for batch in &self.judging {
            let divergence = self.divergence(&student, batch)?;
            nats += f64::from(divergence.sum_all()?.to_scalar::<f32>()?);
            rows += divergence.elem_count();
        }
        Ok(nats / rows.max(1) as f64)
    }

    /// The student with the weights that `weight` says.
    fn student(&self, weight: fn(&Latent<'a>) -> Result<Tensor>) -> Result<Transformer> {
        let mut student = self.floats.clone();
        let device = student.device().clone();
        for latent in &self.latents {
            let weight = weight(latent)?.to_device(&device)?;
            student.linear_mut(latent.layer, latent.projection)?.set_weight(weight);
        }
        Ok(student)
    }

    /// KL of the student of floats and this one over the next token, for every token that has one: nats,
    /// `[rows]`.
    fn divergence(&self, student: &Transformer, batch: &Batch) -> Result<Tensor> {
        let rows: Vec<u32> = batch
            .spans
            .iter()
            .flat_map(|s| s.queries.start..s.queries.end.saturating_sub(1))
            .collect();
        let frame = student.frame(batch)?;
        let said = |by: &Transformer| -> Result<Tensor> {
            let x = by.forward(batch, &frame, &mut NoTaps)?;
            Ok(loss::log_softmax(&by.logits(&x, &rows)?)?)
        };
        Ok(loss::token_kl(&said(&self.floats)?, &said(student)?)?)
    }

    fn moved(&self) -> Result<Vec<Moved>> {
        self.latents.iter().map(Latent::moved).collect()
    }

    fn recoded(&self, kept: &[Moved]) -> f64 {
        let each = self.latents.iter().zip(kept).map(|(latent, moved)| latent.recoded(moved));
        let (others, all) = each.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        others as f64 / all.max(1) as f64
    }

    fn finished(&self, kept: Vec<Moved>) -> Vec<Finished> {
        let each = self.latents.iter().zip(kept).map(|(latent, moved)| {
            let Latent { layer, projection, .. } = *latent;
            Finished { layer, projection, moved }
        });
        each.collect()
    }
}

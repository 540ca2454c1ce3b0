//! What `uspx distill` says of a training.

use super::Split;
use crate::args::DistillArgs;
use crate::error::Result;
use crate::left_out::{self, LeftOut};
use crate::output;
use serde::Serialize;
use std::path::Path;
use uspx_distill::answers::SAMPLE_PREFIX;
use uspx_distill::on_policy::Rounds;
use uspx_distill::{Distilled, Exchanged, Labels};
use uspx_domain::{Skipped, TrainingSummary};
use uspx_runtime::memory;

/// The JSON form.
#[derive(Serialize)]
struct Trained<'a> {
    out: &'a Path,
    prompts: usize,
    validation_prompts: usize,
    /// Nats per response token on the validation prompts, before and after.
    loss_before: f32,
    loss_after: f32,
    steps: u32,
    /// Of these, what a checkpoint brought along.
    resumed_steps: u32,
    best_epoch: u32,
    /// Tokens of prompts and answers that its other steps learned from.
    trained_tokens: u64,
    /// The same, a second of a step.
    trained_tokens_per_second: f64,
    seconds: f64,
    peak_rss_bytes: Option<u64>,
    /// Where the training was shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange: Option<Exchange>,
    /// Where the student learned from its own answers afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_policy: Option<OnPolicy>,
    /// Of the prompts to learn, those that are sampled answers beside others' own.
    samples: usize,
    skipped: Vec<LeftOut>,
}

/// What the machines of a shared training told each other.
#[derive(Serialize)]
struct Exchange {
    machines: usize,
    rounds: u32,
    /// Bytes that all of them sent.
    bytes: u64,
    /// Bytes of their gradients, had they sent them after every step.
    per_step_bytes: u64,
}

/// The rounds in which the student learned from its own answers.
#[derive(Serialize)]
struct OnPolicy {
    /// Rounds made; fewer than asked for where two gained nothing.
    rounds: u32,
    /// The round that the adapter is from; 0 is the training before them.
    best_round: u32,
    /// Nats per response token on the validation prompts, before and after.
    loss_before: f32,
    loss_after: f32,
    steps: u32,
    /// Tokens of prompts and answers that they learned from.
    trained_tokens: u64,
}

/// All that there is to tell.
pub(super) struct Told<'a> {
    pub args: &'a DistillArgs,
    pub rank: u32,
    /// What was learned, and stopped by.
    pub labels: &'a Split<Labels>,
    pub made: &'a Distilled,
    pub rounds: Option<Rounds>,
    pub seconds: f64,
    pub skipped: &'a [Skipped],
}

impl Told<'_> {
    fn exchange(&self) -> Option<Exchange> {
        let Exchanged { rounds, bytes, per_step: per_step_bytes } = self.made.exchanged;
        self.args.machines.map(|machines| Exchange { machines, rounds, bytes, per_step_bytes })
    }

    fn on_policy(&self) -> Option<OnPolicy> {
        self.rounds.map(|Rounds { rounds, summary, tokens }| OnPolicy {
            rounds,
            best_round: summary.best_epoch,
            loss_before: summary.before,
            loss_after: summary.after,
            steps: summary.steps,
            trained_tokens: tokens,
        })
    }

    /// Answers to learn, and to stop by.
    fn counts(&self) -> [usize; 2] {
        [&self.labels.train, &self.labels.validation].map(|labels| labels.prompts.len())
    }

    fn samples(&self) -> usize {
        let learned = self.labels.train.prompts.iter();
        learned.filter(|lesson| lesson.prompt.id.starts_with(SAMPLE_PREFIX)).count()
    }

    /// Nats per response token with the adapter that was written.
    fn loss_after(&self) -> f32 {
        self.rounds.map_or(self.made.summary.after, |rounds| rounds.summary.after)
    }

    /// Prints it.
    pub fn tell(&self) -> Result<()> {
        if self.args.run.json { self.json() } else { self.lines() }
    }

    fn json(&self) -> Result<()> {
        let Self { args, made, seconds, .. } = *self;
        let [prompts, validation_prompts] = self.counts();
        output::json(&Trained {
            out: &args.out,
            prompts,
            validation_prompts,
            loss_before: made.summary.before,
            loss_after: self.loss_after(),
            steps: made.summary.steps,
            resumed_steps: made.resumed,
            best_epoch: made.summary.best_epoch,
            trained_tokens: made.pace.tokens,
            trained_tokens_per_second: made.pace.tokens as f64 / made.pace.seconds,
            seconds,
            peak_rss_bytes: memory::peak_rss(),
            exchange: self.exchange(),
            on_policy: self.on_policy(),
            samples: self.samples(),
            skipped: left_out::listed(self.skipped),
        })
    }

    fn lines(&self) -> Result<()> {
        let Self { args, rank, made, .. } = *self;
        let [prompts, validation_prompts] = self.counts();
        let TrainingSummary { steps, before, best_epoch, .. } = made.summary;
        let from_rounds = self.rounds.map_or(0, |rounds| rounds.summary.best_epoch);
        if best_epoch == 0 && from_rounds == 0 {
            output::remark_paragraph(
                "no pass made the loss better: the adapter changes nothing. Try more prompts or a lower --learning-rate",
            );
        }
        let (out, epochs, after) = (args.out.display(), args.recipe.epochs, self.loss_after());
        output::paragraph(&format!(
            "loss on {validation_prompts} validation prompts: {before:.4} before, {after:.4} after, nats per token"
        ))?;
        output::paragraph(&format!(
            "{out}: an adapter of rank {rank}, from epoch {best_epoch} of {epochs}, {prompts} prompts, {steps} steps"
        ))?;
        if let Some(OnPolicy { rounds, best_round, loss_before, .. }) = self.on_policy() {
            output::paragraph(&format!(
                "on its own answers: from round {best_round} of {rounds}, {loss_before:.4} before them"
            ))?;
        }
        if let Some(Exchange { machines, rounds, bytes, .. }) = self.exchange() {
            output::paragraph(&format!(
                "shared by {machines} machines: {bytes} bytes sent in {rounds} rounds"
            ))?;
        }
        if let Some(mask) = &args.student_mask {
            let (mask, student) = (mask.display(), args.student.display());
            return output::line(&format!(
                "without what the mask cuts: uspx mask export --out DIR \\\n  --model {student} \\\n  --mask {mask} \\\n  --adapter {out}"
            ));
        }
        output::line(&format!(
            "in 4 bits: uspx export --format gguf --out DIR \\\n  --model {} \\\n  --adapter {out} \\\n  --prompts {}",
            args.student.display(),
            args.prompts.display()
        ))
    }
}

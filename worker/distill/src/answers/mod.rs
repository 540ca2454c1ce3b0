//! The answers to learn: a prompt's reference, what the teacher answers itself, and further answers that
//! are sampled from it.
//!
//! [`answers`] asks for all of them as text; [`crate::quality`] may leave some out; [`crate::teach`]
//! labels what is left. Sampled answers stand for the teacher's distribution over whole answers, of
//! which its likeliest one is a single point (sequence-level distillation, Kim & Rush 2016).

mod replies;

use crate::labels::PromptLabels;
use crate::masked::taps_of;
use crate::stages::Stage;
use crate::{DistillError, Result};
use replies::Ask;
pub use replies::Said;
use std::collections::{HashMap, HashSet};
pub use uspx_domain::Target;
use uspx_domain::{Answering, Mask, Prompt, SkipReason, Skipped};
use uspx_model::chat::Bounds;
use uspx_model::generate::{Choice, sampler};
use uspx_model::{LoadedModel, Progress};

/// Ids of the teacher's own answers begin with this where they stand beside a reference.
pub const OWN_PREFIX: &str = "teacher-";
/// Ids of sampled answers begin with this, and their number follows.
pub const SAMPLE_PREFIX: &str = "sample-";

/// Answers sampled beside the target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// How many to each prompt.
    pub samples: u32,
    /// What the logits are divided by, above 0. At 1 they are the teacher's distribution.
    pub temperature: f64,
    /// Of the draws.
    pub seed: u64,
}

impl Sampling {
    /// No further answers.
    pub const NONE: Self = Self { samples: 0, temperature: 1.0, seed: 0 };

    /// What is sampled of answers that are chosen so.
    pub fn of(how: &Answering, seed: u64) -> Self {
        Self { samples: how.samples, temperature: how.temperature, seed }
    }

    fn check(self) -> Result<()> {
        if self.temperature.is_finite() && self.temperature > 0.0 {
            return Ok(());
        }
        Err(DistillError::Recipe(format!(
            "answers cannot be sampled at temperature {}, it is above 0",
            self.temperature
        )))
    }
}

/// What a teacher is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// The answer to learn.
    pub target: Target,
    /// Further ones.
    pub sampling: Sampling,
    /// On an answer and what is written before it.
    pub bounds: Bounds,
    /// Tokens that there is memory for at once.
    pub room: usize,
}

impl Asking {
    /// For answers that are chosen so, samples drawn by `seed`.
    pub fn of(how: &Answering, seed: u64, (bounds, room): (Bounds, usize)) -> Self {
        Self { target: how.target, sampling: Sampling::of(how, seed), bounds, room }
    }
}

/// All answers to one prompt, text alone: their `tokens` are not labelled yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// The prompt.
    pub prompt: Prompt,
    /// The answers to learn: the reference first, where it is one of them.
    pub targets: Vec<PromptLabels>,
    /// Sampled answers in the order in which they were drawn, repetitions included. An answer that
    /// never began is none: there may be fewer than were asked for.
    pub samples: Vec<PromptLabels>,
}

/// The answers to `prompts` by the teacher, masked where `mask` is given, and the prompts without a
/// target. Equal seed, equal samples, where prompts decode in the same batches. `progress` counts
/// answers.
///
/// # Errors
/// A mask that does not fit, a temperature that is none, or what the model and the progress say.
pub fn answers(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    how: &Asking,
    progress: &dyn Progress,
) -> Result<(Vec<Answers>, Vec<Skipped>)> {
    let Asking { target, sampling, bounds, room } = *how;
    sampling.check()?;
    let mut taps = taps_of(teacher, mask)?;
    let parts = 1 + u64::from(sampling.samples > 0);
    let stage = |before| Stage { all: progress, before, parts };
    let open: Vec<Prompt> = prompts.iter().filter(|p| target.asks(p)).cloned().collect();
    let mut ask = Ask { teacher, bounds, room, taps: &mut taps };
    let own = ask.of_all(&open, (&mut Choice::Greedy, 1), &stage(0))?;
    let mut choice = sampler(sampling.seed, sampling.temperature);
    let drawn = match sampling.samples {
        0 => HashMap::new(),
        times => ask.of_all(prompts, (&mut choice, times as usize), &stage(1))?,
    };
    Ok(gathered(prompts, target, (own, drawn)))
}

/// What was said to each prompt, by its id.
pub type Replies = HashMap<String, Vec<Said>>;

/// Puts what was said to its prompts.
pub fn gathered(
    prompts: &[Prompt],
    target: Target,
    (mut own, mut drawn): (Replies, Replies),
) -> (Vec<Answers>, Vec<Skipped>) {
    let (mut all, mut skipped) = (Vec::new(), Vec::new());
    for prompt in prompts {
        let own = own.remove(&prompt.id).and_then(|mut said| said.pop());
        match targets(prompt, target, own) {
            Ok(targets) => {
                let drawn = drawn.remove(&prompt.id).unwrap_or_default();
                let samples = (1..)
                    .zip(drawn.into_iter().flatten())
                    .map(|(n, said)| PromptLabels { prompt: sampled(prompt, n), ..said });
                let samples = samples.collect();
                all.push(Answers { prompt: prompt.clone(), targets, samples });
            }
            Err(reason) => skipped.push(Skipped { id: prompt.id.clone(), reason }),
        }
    }
    (all, skipped)
}

/// The answers to learn of a prompt.
fn targets(
    prompt: &Prompt,
    target: Target,
    own: Option<Said>,
) -> std::result::Result<Vec<PromptLabels>, SkipReason> {
    let own = own.unwrap_or(Err(SkipReason::NoReference));
    let Some(reference) = prompt.reference.clone().filter(|_| target != Target::Teacher) else {
        return own.map(|own| vec![PromptLabels { prompt: prompt.clone(), ..own }]);
    };
    let reference = PromptLabels::text(prompt.clone(), reference);
    let beside = own.ok().filter(|own| !(own.ended && own.answer == reference.answer));
    let id = format!("{OWN_PREFIX}{}", prompt.id);
    let beside = beside.map(|own| PromptLabels { prompt: Prompt { id, ..prompt.clone() }, ..own });
    Ok(std::iter::once(reference).chain(beside).collect())
}

/// The prompt of a sampled answer: the same under a name of its own.
fn sampled(prompt: &Prompt, number: u32) -> Prompt {
    Prompt { id: format!("{SAMPLE_PREFIX}{number}-{}", prompt.id), ..prompt.clone() }
}

impl Answers {
    /// What there is to learn: the targets, and the samples that say something else than they and
    /// each other do. One that only repeats another would teach the same tokens once more.
    pub fn lessons(self) -> Vec<PromptLabels> {
        let Self { targets, samples, .. } = self;
        let mut seen = HashSet::new();
        let mut all = targets;
        all.extend(samples);
        all.retain(|answer| seen.insert((answer.answer.clone(), answer.ended)));
        all
    }
}

#[cfg(test)]
mod tests;

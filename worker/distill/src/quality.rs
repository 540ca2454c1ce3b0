//! Which answers are worth learning: those that the teacher keeps giving, and references that it does not
//! find unlikely.
//!
//! [`consistent`] counts votes: an answer that few of the samples give is likely to be wrong
//! (self-consistency, Wang et al. 2023, arXiv 2203.11171). [`likely`] measures what the teacher thinks of a
//! reference. Both judge answer by answer: where a reference is left out, answers of the teacher's own
//! that stand the test stay.

use crate::answers::Answers;
use crate::labels::{Labels, PromptLabels};
use std::collections::HashSet;
use uspx_domain::{Answering, Prompt, SkipReason, Skipped};

/// Votes on a prompt's answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Votes {
    /// Samples that were asked for; one that never became an answer is for none.
    pub samples: u32,
    /// The least share of them that an answer to learn has, 0 to 1.
    pub least: f32,
}

/// What answers have to stand to be learned.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sieve {
    /// Votes of samples, where they are counted.
    pub votes: Option<Votes>,
    /// The most that a reference may cost the teacher, in nats per byte.
    pub most: Option<f32>,
}

impl Sieve {
    /// That of answers that are chosen so.
    pub fn of(how: &Answering) -> Self {
        let samples = how.samples;
        let votes = how.min_consistency.filter(|_| samples > 0);
        Self { votes: votes.map(|least| Votes { samples, least }), most: how.max_reference_nats }
    }

    /// The answers that stand their samples' votes, and the prompts that lose theirs: see [`consistent`].
    pub fn answers(self, all: Vec<Answers>) -> (Vec<Answers>, Vec<Skipped>) {
        match self.votes {
            Some(votes) => consistent(all, votes),
            None => (all, Vec::new()),
        }
    }

    /// Leaves out what the teacher finds too unlikely: see [`likely`].
    pub fn labels(self, labels: &mut Labels) -> Vec<Skipped> {
        self.most.map(|most| likely(labels, most)).unwrap_or_default()
    }
}

/// Leaves out every answer that fewer than `votes.least` of the prompt's samples give, and names the
/// prompts whose own target that is. What the teacher answered itself gives way to the answer that
/// most of the samples give.
pub fn consistent(all: Vec<Answers>, votes: Votes) -> (Vec<Answers>, Vec<Skipped>) {
    let mut skipped = Vec::new();
    let mut kept = Vec::with_capacity(all.len());
    for answers in all {
        let id = answers.prompt.id.clone();
        let (answers, agreeing) = votes.count(answers);
        if !answers.targets.iter().any(|target| target.prompt.id == id) {
            let reason = SkipReason::Inconsistent { agreeing, samples: votes.samples };
            skipped.push(Skipped { id, reason });
        }
        kept.push(answers);
    }
    (kept, skipped)
}

impl Votes {
    /// The answers with enough votes, and how many the prompt's own target has.
    fn count(self, answers: Answers) -> (Answers, u32) {
        let Answers { prompt, mut targets, mut samples } = answers;
        let cast: Vec<String> =
            samples.iter().filter(|s| s.ended).map(|s| normalised(s).to_owned()).collect();
        let count = |answer: &PromptLabels| {
            cast.iter().filter(|vote| answer.ended && *vote == normalised(answer)).count() as u32
        };
        for target in targets.iter_mut().filter(|target| !is_reference(target)) {
            // Of equals, the first: `max_by_key` takes the last.
            if let Some(most) = samples.iter().rev().max_by_key(|s| count(s))
                && count(most) > count(target)
            {
                *target = PromptLabels { prompt: target.prompt.clone(), ..most.clone() };
            }
        }
        let own = targets.first().map_or(0, count);
        targets.retain(|target| self.is_enough(count(target)));
        samples.retain(|sample| self.is_enough(count(sample)));
        (Answers { prompt, targets, samples }, own)
    }

    fn is_enough(self, agreeing: u32) -> bool {
        // In f64, where shares such as 0.7 of 10 are not lost to rounding.
        f64::from(agreeing) + 1e-6 >= f64::from(self.least) * f64::from(self.samples)
    }
}

/// Leaves out the references that the teacher finds unlikelier than `most` nats per byte, and names
/// their prompts: it thinks that something else is right. One whose bytes its tokens do not spell is
/// not judged.
pub fn likely(labels: &mut Labels, most: f32) -> Vec<Skipped> {
    let mut skipped = Vec::new();
    labels.prompts.retain(|label| {
        let unlikely = nats_per_byte(label).filter(|nats| is_reference(label) && *nats > most);
        let Some(nats) = unlikely else { return true };
        let reason = SkipReason::Unlikely { millinats: (nats * 1e3).round() as u32 };
        skipped.push(Skipped { id: label.prompt.id.clone(), reason });
        false
    });
    skipped
}

/// What the teacher pays for an answer, its end of turn included, in nats per byte of it; none where its
/// tokens are not labelled.
pub fn nats_per_byte(label: &PromptLabels) -> Option<f32> {
    if label.tokens.is_empty() {
        return None;
    }
    let nats: f32 = label.tokens.iter().map(|token| -token.log_prob).sum();
    Some(nats / label.answer.len().max(1) as f32)
}

/// Without what was left out of answers that nobody gave: samples, and prompts that the teacher made up.
pub fn of_prompts(prompts: &[Prompt], skipped: Vec<Skipped>) -> Vec<Skipped> {
    let own: HashSet<&str> = prompts.iter().map(|p| p.id.as_str()).collect();
    skipped.into_iter().filter(|s| own.contains(s.id.as_str())).collect()
}

/// Two answers are one where they differ in the space around them, as `uspx eval --exact-match` has it.
fn normalised(answer: &PromptLabels) -> &str {
    answer.answer.trim()
}

/// Whether it is the prompt's reference that is learned.
fn is_reference(label: &PromptLabels) -> bool {
    label.prompt.reference.as_deref().is_some_and(|r| r.trim() == normalised(label))
}

#[cfg(test)]
mod tests;

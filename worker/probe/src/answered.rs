//! Whether a model's own greedy answers are the references, and how fast it writes them.

use crate::Result;
use std::time::Instant;
use uspx_domain::{Pace, Prompt};
use uspx_model::chat::{Bounds, ReplyPart};
use uspx_model::generate::{Choice, fill_references, generate};
use uspx_model::taps::Taps;
use uspx_model::{LoadedModel, Progress};

/// Tokens that are timed one after another before the other prompts are answered together: enough for
/// a speed, and no long wait on a slow machine.
const TIMED_TOKENS: u64 = 64;

/// What a model answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// Whether each prompt's answer is its reference.
    pub right: Vec<bool>,
    /// How fast the first answers were written, one at a time; none where that was not timed: of a
    /// model that reads its weights from their file for every token, or of answers of one token.
    pub pace: Option<Pace>,
}

impl Answered {
    /// The share of right answers; none of no prompts.
    pub fn share(&self) -> Option<f64> {
        let right = self.right.iter().filter(|right| **right).count();
        (!self.right.is_empty()).then(|| right as f64 / self.right.len() as f64)
    }
}

/// Whether an answer is a reference: the same text, but for white space around it.
pub fn is_same_text(answer: &str, reference: &str) -> bool {
    answer.trim() == reference.trim()
}

/// Lets `model` answer each of `prompts` within `bounds`, at most `room` tokens of prompts together.
/// One without a reference, or whose answer never begins, is not right.
///
/// # Errors
/// Those of the model and of the taps; a stop by the keeper.
pub fn answered(
    model: &LoadedModel,
    prompts: &[Prompt],
    (bounds, room): (Bounds, usize),
    taps: &mut dyn Taps,
    progress: &dyn Progress,
) -> Result<Answered> {
    let total = prompts.len() as u64;
    let mut right = Vec::with_capacity(prompts.len());
    let (mut rest, mut pace) = (prompts, Pace::default());
    while let Some((prompt, others)) = rest.split_first() {
        if model.transformer.is_streamed() || pace.tokens >= TIMED_TOKENS {
            break;
        }
        right.push(alone(model, prompt, bounds, taps, &mut pace)?);
        rest = others;
        progress.report(right.len() as u64, total)?;
    }
    let done = right.len() as u64;
    let mut open: Vec<Prompt> =
        rest.iter().map(|p| Prompt { reference: None, ..p.clone() }).collect();
    let after = After { done, total, progress };
    fill_references(model, &mut open, bounds, room, taps, &after)?;
    let own = open.iter().map(|p| p.reference.as_deref());
    right.extend(own.zip(rest).map(|(answer, prompt)| is_right(answer, prompt)));
    Ok(Answered { right, pace: (pace.tokens > 0).then_some(pace) })
}

fn is_right(answer: Option<&str>, prompt: &Prompt) -> bool {
    let both = answer.zip(prompt.reference.as_deref());
    both.is_some_and(|(answer, reference)| is_same_text(answer, reference))
}

/// Answers one prompt, and times every token after the first: what comes before is the reading of the
/// prompt.
fn alone(
    model: &LoadedModel,
    prompt: &Prompt,
    bounds: Bounds,
    taps: &mut dyn Taps,
    pace: &mut Pace,
) -> Result<bool> {
    let sequence = model.chat.sequence(prompt, None)?;
    let (mut first, mut last, mut tokens) = (None, Instant::now(), 0u64);
    let mut watch = |_: usize, _: u32, _: ReplyPart| {
        last = Instant::now();
        first.get_or_insert(last);
        tokens += 1;
    };
    let replies = generate(model, &[&sequence], bounds, &mut Choice::Greedy, taps, &mut watch)?;
    let took = first.map_or(0, |first: Instant| last.duration_since(first).as_micros());
    let micros = u64::try_from(took).unwrap_or(u64::MAX);
    if tokens > 1 && micros > 0 {
        *pace = pace.and(Pace { tokens: tokens - 1, micros });
    }
    let reply = replies.first().filter(|reply| !reply.unfinished);
    let answer = reply.map(|reply| model.chat.answer_text(&reply.ids));
    Ok(is_right(answer.as_deref(), prompt))
}

/// Reports that begin after what is done already.
struct After<'a> {
    done: u64,
    total: u64,
    progress: &'a dyn Progress,
}

impl Progress for After<'_> {
    fn report(&self, done: u64, _: u64) -> Result<()> {
        self.progress.report(self.done + done, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(reference: Option<&str>) -> Prompt {
        Prompt { reference: reference.map(str::to_owned), ..Prompt::default() }
    }

    #[test]
    fn an_answer_is_right_but_for_white_space_around_it() {
        assert!(is_right(Some(" ls -l\n"), &prompt(Some("ls -l"))));
        assert!(!is_right(Some("ls  -l"), &prompt(Some("ls -l"))));
        assert!(!is_right(Some(""), &prompt(None)) && !is_right(None, &prompt(Some(""))));
    }

    #[test]
    fn the_share_of_no_answers_is_none() {
        assert_eq!(Answered::default().share(), None);
        let right = vec![true, false, false, true];
        assert_eq!(Answered { right, pace: None }.share(), Some(0.5));
    }
}

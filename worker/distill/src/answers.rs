//! The answers to learn: a prompt's reference, or what the teacher answers itself.

use crate::Result;
use std::collections::HashMap;
use uspx_domain::{Prompt, SkipReason, Skipped};
use uspx_model::batch::{Sequence, pack};
use uspx_model::chat::{Answered, Bounds, Reply};
use uspx_model::generate::{Choice, generate};
use uspx_model::taps::Taps;
use uspx_model::{LoadedModel, ModelError, Progress};

/// Padded tokens per batch that decodes in lockstep: each step runs one token of each.
const LOCKSTEP_TOKENS: usize = 8192;

/// The same where every step reads all weights from their file.
const LOCKSTEP_STREAMED: usize = 32_768;

/// An answer to learn, in the teacher's tokens.
pub(crate) struct Given {
    pub prompt: Prompt,
    pub answer: Answered,
    /// Whether it ends there (a generated one may have met its bound instead).
    pub ended: bool,
    /// What the teacher wrote before it.
    pub reasoning: Option<String>,
}

/// A prompt's answer, or why it has none.
type Said<T> = std::result::Result<T, SkipReason>;

/// The answer to each of `prompts`, and the prompts without one.
pub(crate) fn answers(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    (bounds, room): (Bounds, usize),
    taps: &mut dyn Taps,
    progress: &dyn Progress,
) -> Result<(Vec<Given>, Vec<Skipped>)> {
    let replies = greedy(teacher, prompts, (bounds, room), taps, progress)?;
    let (mut given, mut skipped) = (Vec::new(), Vec::new());
    for prompt in prompts {
        let text = match (&prompt.reference, replies.get(&prompt.id)) {
            (Some(reference), _) => {
                Ok(Text { answer: reference.clone(), ended: true, reasoning: None })
            }
            (None, Some(reply)) => {
                reply.as_ref().map_err(|r| *r).and_then(|reply| Text::of(teacher, reply))
            }
            (None, None) => Err(SkipReason::NoReference),
        };
        let answer = match text {
            Ok(text) => read(teacher, prompt, text)?,
            Err(reason) => Err(reason),
        };
        match answer {
            Ok(answer) => given.push(answer),
            Err(reason) => skipped.push(Skipped { id: prompt.id.clone(), reason }),
        }
    }
    Ok((given, skipped))
}

/// An answer as text.
struct Text {
    answer: String,
    ended: bool,
    reasoning: Option<String>,
}

impl Text {
    fn of(teacher: &LoadedModel, reply: &Reply) -> Said<Self> {
        if let Some(reason) = reply.skip_reason() {
            return Err(reason);
        }
        let reasoning =
            (!reply.reasoning.is_empty()).then(|| teacher.chat.decode(&reply.reasoning));
        Ok(Self { answer: teacher.chat.answer_text(&reply.ids), ended: reply.ended, reasoning })
    }
}

/// Prompt and answer in the teacher's tokens.
fn read(teacher: &LoadedModel, prompt: &Prompt, text: Text) -> Result<Said<Given>> {
    if text.answer.trim().is_empty() {
        return Ok(Err(SkipReason::Empty));
    }
    let answered = of_this_prompt(teacher.chat.answered(prompt, &text.answer))?;
    Ok(answered.and_then(|answer| {
        teacher.check_context(&answer.sequence)?;
        let answer = if text.ended { answer } else { answer.without_end(teacher.chat.ends()) };
        Ok(Given { prompt: prompt.clone(), answer, ended: text.ended, reasoning: text.reasoning })
    }))
}

/// Tells a prompt's own trouble from other errors.
fn of_this_prompt<T>(result: uspx_model::Result<T>) -> Result<Said<T>> {
    result.map(Ok).or_else(|error: ModelError| match error.skip_reason() {
        Some(reason) => Ok(Err(reason)),
        None => Err(error.into()),
    })
}

/// The greedy reply to each prompt without a reference, by its id. Prompts of like length decode in
/// lockstep, as many as there is room for.
fn greedy(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    (bounds, memory): (Bounds, usize),
    taps: &mut dyn Taps,
    progress: &dyn Progress,
) -> Result<HashMap<String, Said<Reply>>> {
    let open: Vec<Prompt> = prompts.iter().filter(|p| p.reference.is_none()).cloned().collect();
    let asked = teacher.askable(&open)?;
    let mut replies: HashMap<String, Said<Reply>> =
        asked.skipped.into_iter().map(|skipped| (skipped.id, Err(skipped.reason))).collect();
    let room = bounds.total(teacher.chat.reasons());
    let lengths: Vec<usize> = asked.sequences.iter().map(|s| s.ids.len() + room).collect();
    let streamed = teacher.transformer.is_streamed();
    let most = if streamed { LOCKSTEP_STREAMED } else { LOCKSTEP_TOKENS };
    let mut done = 0;
    for group in pack(&lengths, most.min(memory)) {
        let members: Vec<&Sequence> =
            group.iter().filter_map(|i| asked.sequences.get(*i)).collect();
        let answers =
            generate(teacher, &members, bounds, &mut Choice::Greedy, taps, &mut |_, _, _| {})?;
        let ids = group.iter().filter_map(|i| asked.prompts.get(*i)).map(|p| p.id.clone());
        replies.extend(ids.zip(answers.into_iter().map(Ok)));
        done += group.len();
        progress.report(done as u64, 2 * asked.sequences.len() as u64)?;
    }
    Ok(replies)
}

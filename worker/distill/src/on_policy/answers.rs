//! The student's own answers to prompts.

use crate::{Result, lora};
use uspx_domain::Prompt;
use uspx_model::batch::{Sequence, pack};
use uspx_model::chat::{Bounds, Reply};
use uspx_model::generate::{generate, sampler};
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, Progress};

/// Padded tokens per batch that decodes in lockstep.
const LOCKSTEP_TOKENS: usize = 8192;

/// A prompt as the student answered it.
#[derive(Debug, Clone, PartialEq)]
pub struct Own {
    /// The prompt.
    pub prompt: Prompt,
    /// The answer.
    pub answer: String,
    /// Whether the student ended it; otherwise it met its bound.
    pub ended: bool,
}

/// How answers are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Above 0; at 1 they are the student's own.
    pub temperature: f64,
    /// Equal seeds, equal answers.
    pub seed: u64,
}

/// The student's answer to each of `prompts`, within `bounds`, at most `room` tokens run together.
///
/// One that met its bound is one, too. Prompts whose answer never began or has no text, and those that
/// the student cannot read, have none. The student's adapters learn no more afterwards. `progress`
/// counts prompts.
///
/// # Errors
/// Those of the model and of the progress.
pub fn own_answers(
    student: &mut LoadedModel,
    prompts: &[Prompt],
    ((bounds, room), how): ((Bounds, usize), Sampling),
    progress: &dyn Progress,
) -> Result<Vec<Own>> {
    lora::settle(student)?;
    let asked = student.askable(prompts)?;
    let most = bounds.total(student.chat.reasons());
    let lengths: Vec<usize> = asked.sequences.iter().map(|s| s.ids.len() + most).collect();
    let mut choice = sampler(how.seed, how.temperature);
    let (mut own, mut done) = (Vec::new(), 0);
    for group in pack(&lengths, LOCKSTEP_TOKENS.min(room)) {
        let members: Vec<&Sequence> =
            group.iter().filter_map(|i| asked.sequences.get(*i)).collect();
        let replies =
            generate(student, &members, bounds, &mut choice, &mut NoTaps, &mut |_, _, _| {})?;
        let prompts = group.iter().filter_map(|i| asked.prompts.get(*i));
        own.extend(
            prompts.zip(replies).filter_map(|(prompt, reply)| read(student, prompt, &reply)),
        );
        done += group.len() as u64;
        progress.report(done, asked.sequences.len() as u64)?;
    }
    Ok(own)
}

/// A reply as text. What is no whole character at the end of one that met its bound is left out.
fn read(student: &LoadedModel, prompt: &Prompt, reply: &Reply) -> Option<Own> {
    let text = student.chat.answer_text(&reply.ids);
    let answer =
        if reply.ended { &text } else { text.trim_end_matches(char::REPLACEMENT_CHARACTER) };
    let is_text = !answer.trim().is_empty() && !answer.contains(char::REPLACEMENT_CHARACTER);
    let own = || Own { prompt: prompt.clone(), answer: answer.to_owned(), ended: reply.ended };
    (is_text && !reply.unfinished).then(own)
}

//! One answer of a served teacher: its text, reasoning apart, and what is said of its tokens.

use crate::message::{Choice, Response};
use crate::pieces::Pieces;
use crate::tokens::labels;
use uspx_distill::{PromptLabels, TokenLabel};
use uspx_domain::{Prompt, SkipReason};
use uspx_model::chat::Bounds;

/// Around reasoning that a server leaves in the text.
const THINK: (&str, &str) = ("<think>", "</think>");

/// An answer, or why there is none.
pub(crate) type Read = Result<PromptLabels, SkipReason>;

/// Reads the answer to `prompt`. Answers beyond `bounds` are cut: the API bounds reasoning and answer
/// together.
pub(crate) fn read(
    prompt: &Prompt,
    response: Response,
    bounds: Bounds,
    pieces: &mut Pieces,
) -> Read {
    let Response { choices, usage } = response;
    let Some(choice) = choices.into_iter().next() else { return Err(SkipReason::Empty) };
    let why = choice.finish_reason.clone().unwrap_or_default();
    if why == "content_filter" {
        return Err(SkipReason::Refused);
    }
    let ended = why == "stop";
    let written = usage.and_then(|usage| usage.completion_tokens).unwrap_or_default();
    let Some((reasoning, answer)) = apart(&choice) else {
        return Err(SkipReason::Unfinished { tokens: written });
    };
    if answer.trim().is_empty() {
        let unfinished = !ended && reasoning.is_some();
        return Err(if unfinished {
            SkipReason::Unfinished { tokens: written }
        } else {
            SkipReason::Empty
        });
    }
    let tokens = choice.logprobs.and_then(|all| all.content).unwrap_or_default();
    let tokens = labels(&tokens, (&answer, ended), pieces).unwrap_or_default();
    let whole =
        PromptLabels { ended, reasoning, tokens, ..PromptLabels::text(prompt.clone(), answer) };
    Ok(cut(whole, bounds.answer))
}

/// Reasoning and answer; none where the reasoning never ends.
fn apart(choice: &Choice) -> Option<(Option<String>, String)> {
    let message = &choice.message;
    let content = message.content.as_deref().unwrap_or_default().trim_start();
    let told = message.reasoning_content.as_ref().or(message.reasoning.as_ref());
    let told = told.filter(|text| !text.trim().is_empty()).cloned();
    let (open, close) = THINK;
    if told.is_none() && content.starts_with(open) {
        let (thought, answer) = content.split_once(close)?;
        return Some((Some(format!("{thought}{close}")), answer.trim_start().to_owned()));
    }
    Some((told, content.to_owned()))
}

/// At most `bound` tokens of the answer, at the end of a character.
fn cut(whole: PromptLabels, bound: usize) -> PromptLabels {
    let text = whole.tokens.iter().filter(|token| token.end > token.start).count();
    if text <= bound {
        return whole;
    }
    let ends_a_character = |n: &usize| {
        let end = n.checked_sub(1).and_then(|last| whole.tokens.get(last)).map_or(0, |t| t.end);
        whole.answer.is_char_boundary(end as usize)
    };
    let kept = (0..=bound).rev().find(ends_a_character).unwrap_or(0);
    let tokens: Vec<TokenLabel> = whole.tokens.iter().take(kept).cloned().collect();
    let end = tokens.last().map_or(0, |token| token.end as usize);
    let answer = whole.answer.get(..end).unwrap_or_default().to_owned();
    PromptLabels { answer, ended: false, tokens, ..whole }
}

#[cfg(test)]
mod tests;

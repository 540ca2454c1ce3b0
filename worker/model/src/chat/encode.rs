//! Text to ids: a conversation with its answer, and where in it the answer begins.
//!
//! A conversation's ids begin with exactly those that generation is given. What follows is encoded
//! as it stands behind them: where the whole text's encoding begins with the prompt's ids, the rest
//! is taken from there. Elsewhere the tokenizer joins letters over the *seam* (two newlines become
//! one token, say), which a model in use cannot meet; then the rest is encoded apart by a tokenizer
//! that puts no space marker before its text.

use super::files::set;
use super::turn::AnsweredText;
use super::vocabulary::{TokenBytes, kind, spelled};
use crate::batch::Sequence;
use crate::{ModelError, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

/// A conversation and its answer in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The ids, and where the answer begins. They end with the end of the turn, where the model
    /// knows one.
    pub sequence: Sequence,
    /// The answer's text as these ids spell it: the given one, trimmed where the template trims it.
    pub text: String,
    /// Bytes that the answer's first token spells before the text: a space that it shares with what
    /// opens the answer.
    pub lead: Vec<u8>,
    /// The whole text's encoding is another one.
    pub seam: Option<Seam>,
}

/// Where the ids that a model meets in use and those of the whole text begin to differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seam {
    /// The position.
    pub at: usize,
    /// Ids from one before it on, in use.
    pub used: Vec<u32>,
    /// The same of the whole text.
    pub joint: Vec<u32>,
}

/// The tokenizer of a model.
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    /// The same without a space marker before a text, where the tokenizer itself puts one.
    continuing: Option<Tokenizer>,
}

/// Ids with the bytes of the text that each was made from.
struct Pieces {
    ids: Vec<u32>,
    spans: Vec<(usize, usize)>,
}

impl Pieces {
    fn drop_front(mut self, count: usize, bytes: usize) -> Self {
        self.ids.drain(..count);
        self.spans.drain(..count);
        let back = |at: usize| at.saturating_sub(bytes);
        self.spans.iter_mut().for_each(|(start, end)| (*start, *end) = (back(*start), back(*end)));
        self
    }

    /// Byte tokens are all given the span of what they spell together: each gets its own part of
    /// it.
    fn spread(&mut self, tokens: &[TokenBytes]) {
        let length = |id: &u32| spelled(tokens, *id).len();
        let mut ids = self.ids.as_slice();
        for run in self.spans.chunk_by_mut(|a, b| a == b) {
            let (own, rest) = ids.split_at(run.len());
            ids = rest;
            let (mut at, end) = run.first().copied().unwrap_or_default();
            if own.iter().map(length).sum::<usize>() != end - at {
                continue;
            }
            for (span, id) in run.iter_mut().zip(own) {
                *span = (at, at + length(id));
                at = span.1;
            }
        }
    }

    /// The first token at or behind byte `at` that `wanted` accepts.
    fn find(&self, at: usize, wanted: impl Fn(u32) -> bool) -> Option<usize> {
        self.ids.iter().zip(&self.spans).position(|(id, (start, _))| *start >= at && wanted(*id))
    }
}

impl Encoder {
    /// From tokenizer.json.
    pub fn new(json: &Value, split_special: bool) -> Result<Self> {
        let parse = |json: &Value| -> Result<Tokenizer> {
            let broken = |e| ModelError::Chat(format!("the tokenizer does not parse: {e}"));
            let mut tokenizer = Tokenizer::deserialize(json).map_err(broken)?;
            tokenizer.set_encode_special_tokens(split_special);
            Ok(tokenizer)
        };
        let tokenizer = parse(json)?;
        check_ids(&tokenizer, json)?;
        let continuing = without_marker(json).map(|json| parse(&json)).transpose()?;
        Ok(Self { tokenizer, continuing })
    }

    /// The tokenizer itself.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Ids of a text that begins a sequence.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        fast(&self.tokenizer, text)
    }

    /// Ids of a text that goes on from another one.
    pub fn continuing_ids(&self, text: &str) -> Result<Vec<u32>> {
        fast(self.continuing.as_ref().unwrap_or(&self.tokenizer), text)
    }

    /// A conversation with its answer. `tokens` says what each id stands for, `ends` which end a
    /// turn.
    pub fn answered(
        &self,
        text: AnsweredText,
        tokens: &[TokenBytes],
        ends: &[u32],
        eos: Option<u32>,
    ) -> Result<Answered> {
        let prompt = self.ids(&text.prompt)?;
        let joint = pieces(&self.tokenizer, &text.whole(), tokens)?;
        let (rest, other) = if joint.ids.starts_with(&prompt) {
            (joint.drop_front(prompt.len(), text.prompt.len()), None)
        } else {
            let rest = [text.opening.as_str(), &text.answer, &text.closing].concat();
            (
                pieces(self.continuing.as_ref().unwrap_or(&self.tokenizer), &rest, tokens)?,
                Some(joint.ids),
            )
        };
        let mut answer = Answer::cut(rest, &text, tokens, ends, eos);
        let response_start = prompt.len() + answer.start;
        let ids = [prompt, std::mem::take(&mut answer.ids)].concat();
        let seam = other.and_then(|other| Seam::between(&ids, &other));
        Ok(Answered {
            sequence: Sequence { ids, response_start },
            text: text.answer,
            lead: answer.lead,
            seam,
        })
    }
}

impl Answered {
    /// What token `at` of the answer spells before the text: only the first one may.
    pub fn lead_of(&self, at: usize) -> &[u8] {
        if at == 0 { &self.lead } else { &[] }
    }

    /// The same of an answer that met its bound: it has no end of turn, which `ends` are.
    pub fn without_end(mut self, ends: &[u32]) -> Self {
        self.sequence.ids.pop_if(|last| ends.contains(last));
        self
    }
}

impl Seam {
    fn between(used: &[u32], joint: &[u32]) -> Option<Self> {
        let at = used.iter().zip(joint).position(|(a, b)| a != b)?;
        let around = |ids: &[u32]| ids.iter().skip(at.saturating_sub(1)).take(4).copied().collect();
        Some(Self { at, used: around(used), joint: around(joint) })
    }
}

/// What follows the prompt: what opens the answer, the answer, its end.
struct Answer {
    ids: Vec<u32>,
    start: usize,
    lead: Vec<u8>,
}

impl Answer {
    fn cut(
        rest: Pieces,
        text: &AnsweredText,
        tokens: &[TokenBytes],
        ends: &[u32],
        eos: Option<u32>,
    ) -> Self {
        let special = |id: u32| tokens.get(id as usize) == Some(&TokenBytes::Special);
        let (from, to) = (text.opening.len(), text.opening.len() + text.answer.len());
        // A control token may have swallowed the space behind it; it is no part of the answer for
        // that.
        let begins = |(id, (start, end)): (&u32, &(usize, usize))| {
            *end > from && !(special(*id) && *start < from)
        };
        let start = rest.ids.iter().zip(&rest.spans).position(begins).unwrap_or(rest.ids.len());
        let end = rest.find(to, |id| ends.contains(&id)).or_else(|| rest.find(to, special));
        let stop = end.or_else(|| rest.find(to, |_| true)).unwrap_or(rest.ids.len());
        let tail = end.and_then(|end| rest.spans.get(end)).map_or(0, |(start, _)| start - to);
        let spelled = [text.answer.as_str(), text.closing.get(..tail).unwrap_or_default()].concat();
        let start = start.min(stop);
        let (start, lead) = lead(start, rest.ids.get(..stop).unwrap_or_default(), &spelled, tokens);
        // Where the template writes no end of turn the model has to emit one all the same.
        let end = end.and_then(|end| rest.ids.get(end)).copied().or(eos);
        let mut ids = rest.ids;
        ids.truncate(stop);
        ids.extend(end);
        Self { ids, start, lead }
    }
}

/// What the tokens from `start` on spell before `answer`, and where the first one stands that
/// spells some of the answer.
fn lead(mut start: usize, ids: &[u32], answer: &str, tokens: &[TokenBytes]) -> (usize, Vec<u8>) {
    let spelled = |id: &u32| spelled(tokens, *id);
    let mut lead: Vec<u8> = ids.iter().skip(start).flat_map(spelled).copied().collect();
    if !lead.ends_with(answer.as_bytes()) {
        return (start, Vec::new());
    }
    lead.truncate(lead.len() - answer.len());
    // Whole tokens of it (a lone space marker) open the answer.
    while let Some(token) =
        ids.get(start).map(spelled).filter(|b| !lead.is_empty() && b.len() <= lead.len())
    {
        lead.drain(..token.len());
        start += 1;
    }
    (start, lead)
}

/// Every added token must have the id that the file gives it.
fn check_ids(tokenizer: &Tokenizer, json: &Value) -> Result<()> {
    for token in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        let (content, id) =
            (token.get("content").and_then(Value::as_str), token.get("id").and_then(Value::as_u64));
        if let (Some(content), Some(id)) = (content, id)
            && tokenizer.token_to_id(content).map(u64::from) != Some(id)
        {
            return Err(ModelError::Chat(format!(
                "the token `{content}` cannot have the id {id} that its file gives it"
            )));
        }
    }
    Ok(())
}

fn fast(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    Ok(tokenizer.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
}

fn pieces(tokenizer: &Tokenizer, text: &str, tokens: &[TokenBytes]) -> Result<Pieces> {
    let encoding = tokenizer.encode(text, false).map_err(failed)?;
    let mut pieces =
        Pieces { ids: encoding.get_ids().to_vec(), spans: encoding.get_offsets().to_vec() };
    pieces.spread(tokens);
    Ok(pieces)
}

fn failed(error: tokenizers::Error) -> ModelError {
    ModelError::Chat(format!("the tokenizer failed: {error}"))
}

/// The tokenizer without what puts a space marker before every text; `None` where nothing does.
fn without_marker(json: &Value) -> Option<Value> {
    let unmarked = |component| {
        let part = json.get(component)?;
        let mut bare = part.clone();
        unmark(&mut bare);
        (bare != *part).then_some((component, bare))
    };
    let changed: Vec<(&str, Value)> =
        ["normalizer", "pre_tokenizer"].into_iter().filter_map(unmarked).collect();
    // The vocabulary is large: it is copied only where something changes.
    (!changed.is_empty()).then(|| {
        let mut bare = json.clone();
        changed.into_iter().for_each(|(component, part)| set(&mut bare, component, part));
        bare
    })
}

fn unmark(part: &mut Value) {
    for key in ["normalizers", "pretokenizers"] {
        if let Some(list) = part.get_mut(key).and_then(Value::as_array_mut) {
            list.retain(|part| kind(part) != "Prepend");
            list.iter_mut().for_each(unmark);
        }
    }
    match kind(part) {
        "Prepend" => *part = Value::Null,
        "Metaspace" => {
            set(part, "prepend_scheme", json!("never"));
            if part.get("add_prefix_space").is_some() {
                set(part, "add_prefix_space", json!(false));
            }
        }
        "ByteLevel" if part.get("add_prefix_space") == Some(&json!(true)) => {
            set(part, "add_prefix_space", json!(false))
        }
        _ => {}
    }
}

//! Labels as bytes: MessagePack around packed columns, five bytes per kept probability.
//!
//! Reading trusts nothing: every length, index, span and number is checked before labels are handed
//! out.

mod at_most;

use crate::labels::{Labels, Piece, PromptLabels, TokenLabel};
use crate::{DistillError, Result};
use at_most::at_most;
use half::f16;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use uspx_domain::{Digest, Exchange, Fingerprint, Prompt};

/// The version written. Version 1 had no reasoning; it is read as well.
pub const VERSION: u32 = 2;
/// The largest blob read.
pub const MAX_BYTES: usize = 1 << 30;
/// The most probabilities kept per token.
pub const MAX_TOP_K: u32 = 4096;
/// The most prompts of a blob.
const MAX_PROMPTS: usize = 1 << 20;
/// The most pieces: an entry of a `top` has 24 bits for one.
const MAX_PIECES: usize = (1 << 24) - 1;

#[derive(Serialize, Deserialize)]
struct Blob {
    version: u32,
    teacher: Fingerprint,
    vocabulary: Digest,
    #[serde(deserialize_with = "at_most::<MAX_PIECES, _, _>")]
    pieces: Vec<(u32, Piece)>,
    #[serde(deserialize_with = "at_most::<MAX_PROMPTS, _, _>")]
    prompts: Vec<Row>,
}

/// A prompt with every field in its place: [`Prompt`] leaves out what is empty, which a row of
/// fields cannot.
#[derive(Serialize, Deserialize)]
struct StoredPrompt {
    id: String,
    prompt: String,
    reference: Option<String>,
    system: Option<String>,
    tags: Vec<String>,
    /// The last, so that a row may end before it where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Exchange>,
}

impl From<Prompt> for StoredPrompt {
    fn from(p: Prompt) -> Self {
        let Prompt { id, prompt, reference, system, tags, earlier } = p;
        Self { id, prompt, reference, system, tags, earlier }
    }
}

impl From<StoredPrompt> for Prompt {
    fn from(p: StoredPrompt) -> Self {
        let StoredPrompt { id, prompt, reference, system, tags, earlier } = p;
        Self { id, prompt, reference, system, tags, earlier }
    }
}

#[derive(Serialize, Deserialize)]
struct Row {
    prompt: StoredPrompt,
    answer: String,
    ended: bool,
    /// Per token: piece u32, start u32, end u32, log-probability f32, tail f32, entries of `top`
    /// u16; little-endian.
    tokens: ByteBuf,
    /// Per entry of every token's `top`: piece in 24 bits, log-probability f16; little-endian.
    top: ByteBuf,
    /// Since version 2.
    #[serde(default)]
    reasoning: Option<String>,
}

const TOKEN_BYTES: usize = 22;
const ENTRY_BYTES: usize = 5;

fn bad(reason: impl Into<String>) -> DistillError {
    DistillError::Labels(reason.into())
}

impl Labels {
    /// The labels as bytes.
    ///
    /// # Errors
    /// More pieces or probabilities than the format can number.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if self.pieces.len() > MAX_PIECES || self.prompts.len() > MAX_PROMPTS {
            return Err(bad(format!("more than {MAX_PIECES} tokens or {MAX_PROMPTS} prompts")));
        }
        let prompts = self.prompts.iter().map(row).collect::<Result<_>>()?;
        let blob = Blob {
            version: VERSION,
            teacher: self.teacher,
            vocabulary: self.vocabulary,
            pieces: self.pieces.clone(),
            prompts,
        };
        rmp_serde::to_vec(&blob).map_err(|e| bad(e.to_string()))
    }

    /// Reads labels.
    ///
    /// # Errors
    /// [`DistillError::LabelsVersion`] for a newer format; [`DistillError::Labels`] for anything
    /// else that is not right.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(bad(format!("{} bytes, {MAX_BYTES} is the most", bytes.len())));
        }
        check_version(bytes)?;
        let blob: Blob =
            rmp_serde::from_slice(bytes).map_err(|e| bad(format!("does not decode ({e})")))?;
        let prompts = blob
            .prompts
            .into_iter()
            .map(|r| unpack(r, blob.pieces.len()))
            .collect::<Result<_>>()?;
        Ok(Self {
            teacher: blob.teacher,
            vocabulary: blob.vocabulary,
            pieces: blob.pieces,
            prompts,
        })
    }
}

/// The version stands first and is read alone, so that a newer layout is named as such.
fn check_version(bytes: &[u8]) -> Result<()> {
    // An array header of up to 15 fields is one byte; the version follows it.
    let rest = bytes.get(1..).filter(|_| bytes.first().is_some_and(|b| b & 0xf0 == 0x90));
    let version: u32 = rest
        .and_then(|mut rest| u32::deserialize(&mut rmp_serde::Deserializer::new(&mut rest)).ok())
        .ok_or_else(|| bad("does not begin with a format version"))?;
    if (1..=VERSION).contains(&version) {
        Ok(())
    } else {
        Err(DistillError::LabelsVersion(version))
    }
}

fn row(labels: &PromptLabels) -> Result<Row> {
    let (mut tokens, mut top) = (Vec::new(), Vec::new());
    for token in &labels.tokens {
        let count = u16::try_from(token.top.len()).ok().filter(|c| u32::from(*c) <= MAX_TOP_K);
        let count = count
            .ok_or_else(|| bad(format!("more than {MAX_TOP_K} probabilities for one token")))?;
        for word in [token.piece, token.start, token.end] {
            tokens.extend(word.to_le_bytes());
        }
        tokens.extend(token.log_prob.to_le_bytes());
        tokens.extend(token.tail.to_le_bytes());
        tokens.extend(count.to_le_bytes());
        for (piece, log_prob) in &token.top {
            top.extend(piece.to_le_bytes().into_iter().take(3));
            top.extend(f16::from_f32(*log_prob).to_le_bytes());
        }
    }
    Ok(Row {
        prompt: labels.prompt.clone().into(),
        answer: labels.answer.clone(),
        ended: labels.ended,
        tokens: ByteBuf::from(tokens),
        top: ByteBuf::from(top),
        reasoning: labels.reasoning.clone(),
    })
}

/// Takes fixed numbers of bytes off a column.
struct Column<'a>(&'a [u8]);

impl Column<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) =
            self.0.split_first_chunk::<N>().ok_or_else(|| bad("a column is too short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn f32(&mut self) -> Result<f32> {
        Ok(f32::from_le_bytes(self.take()?))
    }
}

fn unpack(row: Row, pieces: usize) -> Result<PromptLabels> {
    if !row.tokens.len().is_multiple_of(TOKEN_BYTES) || !row.top.len().is_multiple_of(ENTRY_BYTES) {
        return Err(bad("a column's length does not fit its rows"));
    }
    let (mut column, mut entries) = (Column(&row.tokens), Column(&row.top));
    let mut tokens = Vec::with_capacity(row.tokens.len() / TOKEN_BYTES);
    for _ in 0..row.tokens.len() / TOKEN_BYTES {
        tokens.push(token(&mut column, &mut entries)?);
    }
    if !entries.0.is_empty() {
        return Err(bad("probabilities are left over"));
    }
    check(&tokens, row.answer.len(), pieces)?;
    let Row { prompt, answer, ended, reasoning, .. } = row;
    Ok(PromptLabels { prompt: prompt.into(), answer, ended, reasoning, tokens })
}

fn token(column: &mut Column<'_>, entries: &mut Column<'_>) -> Result<TokenLabel> {
    let (piece, start, end) = (column.u32()?, column.u32()?, column.u32()?);
    let (log_prob, tail) = (column.f32()?, column.f32()?);
    let count = u16::from_le_bytes(column.take()?);
    if u32::from(count) > MAX_TOP_K {
        return Err(bad(format!("more than {MAX_TOP_K} probabilities for one token")));
    }
    let entry = |_| {
        let [a, b, c] = entries.take()?;
        let log_prob = f16::from_le_bytes(entries.take()?).to_f32();
        Ok((u32::from_le_bytes([a, b, c, 0]), log_prob))
    };
    let top = (0..count).map(entry).collect::<Result<_>>()?;
    Ok(TokenLabel { piece, start, end, log_prob, top, tail })
}

/// Tokens must cover the answer without gap, name known pieces, and hold probabilities.
fn check(tokens: &[TokenLabel], answer: usize, pieces: usize) -> Result<()> {
    let mut at = 0;
    for token in tokens {
        let named = std::iter::once(token.piece).chain(token.top.iter().map(|(p, _)| *p));
        if named.into_iter().any(|p| p as usize >= pieces) {
            return Err(bad("a token names no piece of the table"));
        }
        if token.start != at || token.end < token.start || token.end as usize > answer {
            return Err(bad("tokens do not cover the answer in order"));
        }
        at = token.end;
        let mass: f32 = token.top.iter().map(|(_, l)| l.exp()).sum();
        let sound = token.log_prob <= 0.01 && token.top.iter().all(|(_, l)| *l <= 0.01);
        // NaN fails each of these.
        if !(sound && (0.0..=1.001).contains(&token.tail) && mass <= 1.01) {
            return Err(bad("a probability is out of range"));
        }
    }
    if tokens.is_empty() || at as usize == answer {
        Ok(())
    } else {
        Err(bad("tokens end before the answer does"))
    }
}

#[cfg(test)]
mod tests;

//! A served teacher's token probabilities as labels of its answer.
//!
//! Servers list every token that was written: reasoning and headers before the answer, and some the
//! one that ends the turn. Those that spell the answer are found by their bytes, from its end.

use crate::message::{Candidate, Token};
use crate::pieces::{Pieces, is_end, piece_of};
use std::collections::BTreeMap;
use uspx_distill::{Piece, TokenLabel};

/// The tokens of an answer within those that were written.
struct Spelling<'a> {
    /// What they spell, a token each.
    tokens: &'a [Token],
    /// Space that the first spells before the answer.
    lead: &'a [u8],
    /// What ends the turn, where it is told.
    end: Option<&'a Token>,
}

/// Labels of `answer`, which the turn ends with where it `ended`; none where the tokens do not spell it.
pub(crate) fn labels(
    written: &[Token],
    (answer, ended): (&str, bool),
    pieces: &mut Pieces,
) -> Option<Vec<TokenLabel>> {
    let Spelling { tokens, lead, end } = spelling(written, answer, ended)?;
    let mut labels = Vec::with_capacity(tokens.len() + 1);
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate() {
        let lead = if at == 0 { lead } else { &[] };
        let stop = start + (token.own.bytes().len() - lead.len()) as u32;
        labels.push(label(token, (start, stop), (lead, end), pieces)?);
        start = stop;
    }
    if let Some(last) = end {
        labels.push(label(last, (start, start), (&[], end), pieces)?);
    }
    Some(labels)
}

/// The tokens that spell `answer`.
fn spelling<'a>(written: &'a [Token], answer: &str, ended: bool) -> Option<Spelling<'a>> {
    let (end, text) = match written.split_last() {
        Some((last, before)) if ended && is_end(&last.own) => (Some(last), before),
        _ => (None, written),
    };
    let mut missing = answer.as_bytes();
    for (at, token) in text.iter().enumerate().rev() {
        let bytes = token.own.bytes();
        if bytes.is_empty() {
            return None;
        }
        let lead: &[u8] = match missing.strip_suffix(bytes) {
            Some([]) => &[],
            Some(before) => {
                missing = before;
                continue;
            }
            // The first token may begin with space that is no part of the answer.
            None => {
                bytes.strip_suffix(missing).filter(|l| l.iter().all(u8::is_ascii_whitespace))?
            }
        };
        return Some(Spelling { tokens: text.get(at..)?, lead, end });
    }
    None
}

/// One token's label.
fn label(
    token: &Token,
    (start, end): (u32, u32),
    (lead, last): (&[u8], Option<&Token>),
    pieces: &mut Pieces,
) -> Option<TokenLabel> {
    let log_prob = log_prob_of(&token.own)?;
    let piece = match start == end {
        true => Piece::End,
        // It was found by its bytes, whatever its name looks like.
        false => Piece::Text(token.own.bytes().strip_prefix(lead)?.to_vec()),
    };
    let piece = pieces.place(piece);
    // Tokens that spell the same are one piece: their probabilities add up.
    let mut masses: BTreeMap<u32, f64> = BTreeMap::new();
    for candidate in token.top_logprobs.iter().flatten() {
        if let Some(log_prob) = log_prob_of(candidate) {
            let place = pieces.place(piece_of(candidate, lead, last.map(|token| &token.own)));
            *masses.entry(place).or_default() += f64::from(log_prob).exp();
        }
    }
    let tail = (1.0 - masses.values().sum::<f64>()).clamp(0.0, 1.0) as f32;
    let mut top: Vec<(u32, f32)> =
        masses.into_iter().map(|(place, mass)| (place, mass.ln().min(0.0) as f32)).collect();
    top.retain(|(_, log_prob)| log_prob.is_finite());
    top.sort_by(|a, b| b.1.total_cmp(&a.1));
    Some(TokenLabel { piece, start, end, log_prob, top, tail })
}

/// A log-probability that is one. Servers write the smallest as some large negative number.
fn log_prob_of(candidate: &Candidate) -> Option<f32> {
    candidate.logprob.filter(|l| l.is_finite()).map(|l| l.min(0.0))
}

#[cfg(test)]
mod tests;

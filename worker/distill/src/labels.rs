//! Labels: an answer to learn, and the teacher's next-token probabilities along it, with the
//! *bytes* of its tokens.
//!
//! A student with another tokenizer needs nothing else: no ids of the teacher's vocabulary have a
//! meaning here beyond the blob's own table of pieces.

use serde::{Deserialize, Serialize};
use uspx_domain::{Digest, Fingerprint, Prompt};

/// What a teacher's token stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Piece {
    /// Bytes of text; not always whole characters.
    Text(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The end of the turn.
    End,
    /// Another control token: it stands for no text.
    Control,
}

/// The teacher's word on one token of its own tokenisation of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLabel {
    /// The token, by its place in [`Labels::pieces`].
    pub piece: u32,
    /// First byte of the answer that it covers.
    pub start: u32,
    /// One past its last byte; equal to `start` for the end of the turn.
    pub end: u32,
    /// Its log-probability, in nats.
    pub log_prob: f32,
    /// The kept tokens, most likely first: piece and log-probability (stored with half precision).
    /// They are the most likely ones here, or drawn ones ([`crate::keeping`]).
    pub top: Vec<(u32, f32)>,
    /// Probability of all other tokens together; none beside drawn ones, which stand for all.
    pub tail: f32,
}

/// One prompt with the answer to learn.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptLabels {
    /// The prompt.
    pub prompt: Prompt,
    /// The answer to learn.
    pub answer: String,
    /// Whether the answer ends there (a generated one may have met its bound instead).
    pub ended: bool,
    /// What the teacher wrote before a generated answer: kept apart, and not learned.
    pub reasoning: Option<String>,
    /// The teacher's tokens of the answer. Empty where they do not spell it byte by byte: then only
    /// its text is learned.
    pub tokens: Vec<TokenLabel>,
}

/// Labels of some prompts by one teacher.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// The teacher.
    pub teacher: Fingerprint,
    /// Digest of the teacher's whole vocabulary ([`vocabulary`]): equal digests, equal token ids.
    pub vocabulary: Digest,
    /// The tokens that are named: id in the teacher's vocabulary, and what it stands for.
    pub pieces: Vec<(u32, Piece)>,
    /// The prompts.
    pub prompts: Vec<PromptLabels>,
}

impl TokenLabel {
    /// All that is known of the place: the kept tokens, and the answer's own where it is one of the
    /// others; piece and log-probability. Where the others have no probability it has none either: an
    /// answer's token that was not drawn must not count beside those that were.
    pub fn candidates(&self) -> impl Iterator<Item = (u32, f32)> + '_ {
        let is_other = self.tail > 0.0 && !self.top.iter().any(|(piece, _)| *piece == self.piece);
        let own = is_other.then_some((self.piece, self.log_prob));
        self.top.iter().copied().chain(own)
    }
}

impl PromptLabels {
    /// A whole answer as text alone.
    pub fn text(prompt: Prompt, answer: String) -> Self {
        Self { prompt, answer, ended: true, reasoning: None, tokens: Vec::new() }
    }
}

impl Labels {
    /// Teacher tokens labelled.
    pub fn tokens(&self) -> u64 {
        self.prompts.iter().map(|p| p.tokens.len() as u64).sum()
    }

    /// The piece at a place in the table.
    pub fn piece(&self, at: u32) -> Option<&Piece> {
        self.pieces.get(at as usize).map(|(_, piece)| piece)
    }
}

/// What token `id` of `chat` stands for.
pub fn piece_of(chat: &uspx_model::chat::Chat, id: u32) -> Piece {
    match chat.token(id) {
        uspx_model::chat::TokenBytes::Text(bytes) => Piece::Text(bytes.clone()),
        _ if chat.ends().contains(&id) => Piece::End,
        _ => Piece::Control,
    }
}

/// The digest of a whole vocabulary: every id with what it stands for.
pub fn vocabulary(chat: &uspx_model::chat::Chat) -> Digest {
    let mut all = Vec::new();
    for id in 0..chat.tokens().len() as u32 {
        let (kind, bytes): (u8, Vec<u8>) = match piece_of(chat, id) {
            Piece::Text(bytes) => (0, bytes),
            Piece::End => (1, Vec::new()),
            Piece::Control => (2, Vec::new()),
        };
        all.push(kind);
        all.extend((bytes.len() as u32).to_le_bytes());
        all.extend(bytes);
    }
    Digest::of(&all)
}

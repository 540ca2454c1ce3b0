//! The table of pieces that a served teacher's tokens make: the API tells bytes, and no ids.

use crate::message::Candidate;
use std::collections::HashMap;
use uspx_distill::Piece;

/// Tokens that end a turn, by the names that they have in the usual vocabularies.
const ENDS: [&str; 10] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eot|>",
    "<|end|>",
    "<|return|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// Pieces by what they stand for.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: Vec<(u32, Piece)>,
    places: HashMap<Piece, u32>,
}

impl Pieces {
    /// The place of a piece; a new one gets the next, which also serves as its id.
    pub fn place(&mut self, piece: Piece) -> u32 {
        let next = self.pieces.len() as u32;
        let place = *self.places.entry(piece.clone()).or_insert(next);
        if place == next {
            self.pieces.push((next, piece));
        }
        place
    }

    /// The table.
    pub fn into_table(self) -> Vec<(u32, Piece)> {
        self.pieces
    }
}

/// What a candidate stands for behind `lead`, which it has to begin with to be text of the answer, where
/// `end` is the token that ended the turn, if it is told. A control token spells nothing, or its name.
pub(crate) fn piece_of(candidate: &Candidate, lead: &[u8], end: Option<&Candidate>) -> Piece {
    let bytes = candidate.bytes();
    // llama.cpp spells half a character by nothing, too: where there are ids, they tell.
    let same = || candidate.id.is_none() || end.is_some_and(|end| end.id == candidate.id);
    if is_end(candidate) && (!bytes.is_empty() || same()) {
        return Piece::End;
    }
    match bytes.strip_prefix(lead) {
        Some(rest) if !rest.is_empty() && !is_control(candidate) => Piece::Text(rest.to_vec()),
        _ => Piece::Control,
    }
}

/// Whether a turn may end by it: llama.cpp gives such a token no bytes, others its name.
pub(crate) fn is_end(candidate: &Candidate) -> bool {
    candidate.bytes().is_empty() || ENDS.contains(&candidate.token.as_str())
}

/// Whether it stands for no text: another control token by the shape of its name, or part of a
/// character that the server could not spell.
fn is_control(candidate: &Candidate) -> bool {
    let name = candidate.token.as_str();
    let marked = |open: &str, close: &str| name.starts_with(open) && name.ends_with(close);
    let named = name.len() > 4 && (marked("<|", "|>") || marked("<\u{ff5c}", "\u{ff5c}>"));
    let replaced = "\u{fffd}".as_bytes();
    named || candidate.bytes().windows(replaced.len()).any(|w| w == replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(token: &str, bytes: Option<&[u8]>) -> Candidate {
        let bytes = bytes.map(<[u8]>::to_vec);
        Candidate { token: token.into(), logprob: Some(-1.0), bytes, id: None }
    }

    #[test]
    fn tokens_are_text_ends_or_controls() {
        let text = |bytes: &[u8]| Piece::Text(bytes.to_vec());
        for (token, bytes, lead, wanted) in [
            (" ls", Some(&b" ls"[..]), &b""[..], text(b" ls")),
            (" ls", None, b" ", text(b"ls")),
            (" ", None, b" ", Piece::Control),
            ("ls", None, b" ", Piece::Control),
            ("\u{fffd}", Some(&[0xc3]), b"", text(&[0xc3])),
            ("\u{fffd}", None, b"", Piece::Control),
            ("", Some(b""), b"", Piece::End),
            ("<|im_end|>", Some(b"<|im_end|>"), b"", Piece::End),
            ("<|im_start|>", Some(b"<|im_start|>"), b"", Piece::Control),
            ("<|>", None, b"", text(b"<|>")),
        ] {
            let found = piece_of(&candidate(token, bytes), lead, None);
            assert_eq!(found, wanted, "{token:?} {lead:?}");
        }
    }

    #[test]
    fn of_tokens_that_spell_nothing_ids_tell_the_end() {
        let of = |id| Candidate { id: Some(id), ..candidate("", Some(b"")) };
        assert_eq!(piece_of(&of(7), b"", Some(&of(7))), Piece::End);
        assert_eq!(piece_of(&of(8), b"", Some(&of(7))), Piece::Control);
        assert_eq!(piece_of(&of(7), b"", None), Piece::Control);
    }

    #[test]
    fn a_piece_has_one_place() {
        let mut pieces = Pieces::default();
        let (a, end) = (Piece::Text(b"a".to_vec()), Piece::End);
        let places = [&a, &end, &a].map(|piece| pieces.place(piece.clone()));
        assert_eq!((places, pieces.into_table()), ([0, 1, 0], vec![(0, a), (1, end)]));
    }
}

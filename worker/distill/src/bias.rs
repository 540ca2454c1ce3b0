//! How differently two tokenizers end at the same byte.
//!
//! The probability of a chunk's tokens is that of its bytes *and* of a text behind them which does
//! not join its last token to more. Where one tokenizer would join on a text and the other would
//! not, the two probabilities are about different texts (the tokenisation bias of ALM,
//! arXiv 2503.20083). How much that is stands in the teacher's labels: what it would have joined
//! is among the candidates in the place of its last token, and what the student would have joined
//! among the candidates behind it.

use crate::Result;
use crate::align::{Aligner, FAINT, First, Place};
use crate::chunks::Chunk;
use crate::labels::{Piece, TokenLabel};

impl Aligner<'_> {
    /// Of the teacher's probability that the text goes on with the bytes of a chunk's last token,
    /// the share that only one side counts: the larger of the two sides'. Of candidates that are not
    /// kept, or that are less likely than one in a thousand, nothing is counted.
    ///
    /// # Errors
    /// Those of the student's tokenizer.
    pub(crate) fn bias(&self, chunk: &Chunk) -> Result<f64> {
        let tokens = &self.prompt.tokens;
        let last = chunk.teacher.end.checked_sub(1).and_then(|at| tokens.get(at));
        // Nothing follows an end of turn.
        let Some(last) = last.filter(|last| last.start < last.end) else { return Ok(0.0) };
        let end = last.end as usize;
        let place = Place { at: chunk.student.end, start: end, end };
        let own = f64::from(last.log_prob).exp();
        let bytes = self.prompt.answer.as_bytes().get(last.start as usize..end).unwrap_or_default();
        let (mut extended, mut ours) = (0.0, 0.0);
        for (mass, text) in self.others(last, 1.0) {
            if let Some(rest) = text.strip_prefix(bytes).filter(|rest| !rest.is_empty()) {
                extended += mass;
                ours += if self.joins(&place, rest)? { 0.0 } else { mass };
            }
        }
        let mut theirs = 0.0;
        for (mass, text) in
            tokens.get(chunk.teacher.end).into_iter().flat_map(|l| self.others(l, own))
        {
            theirs += if self.joins(&place, text)? { mass } else { 0.0 };
        }
        Ok(f64::max(ours, theirs) / (own + extended).max(f64::MIN_POSITIVE))
    }

    /// The texts that could have stood in the place of a label's token, with their probabilities
    /// times `reached`.
    fn others<'a>(
        &'a self,
        label: &'a TokenLabel,
        reached: f64,
    ) -> impl Iterator<Item = (f64, &'a [u8])> {
        label.candidates().filter(|(piece, _)| *piece != label.piece).filter_map(
            move |(piece, log_prob)| {
                let mass = reached * f64::from(log_prob).exp();
                match self.labels.piece(piece) {
                    Some(Piece::Text(bytes)) if mass >= FAINT && !bytes.is_empty() => {
                        Some((mass, bytes.as_slice()))
                    }
                    _ => None,
                }
            },
        )
    }

    /// Whether the student would have joined the token before the place to `said` behind it.
    fn joins(&self, place: &Place, said: &[u8]) -> Result<bool> {
        Ok(matches!(self.first_token(place, said)?, First::Joined))
    }
}

//! The teacher's probabilities carried over to the student's tokens, by bytes.
//!
//! Both tokenisations spell the same answer. The student is asked for a token at a byte offset o;
//! the teacher's word is about *its* tokens there. With r the answer's bytes between the teacher's
//! last boundary and o:
//!
//! - **Candidates.** Each teacher token that begins with r promises that the text goes on with its
//!   further bytes s. It stands for the token that the student's own tokenizer puts at o when it
//!   tokenises the answer up to o with s after it (an equal token where there is one, else a
//!   shorter first part). Masses that meet on one student token add up.
//! - **Conditioning.** What cannot be is dropped and the rest divided by what remains: teacher
//!   tokens that contradict r, and continuations with which the student's tokenizer would have
//!   joined o over (it would then not stand at o).
//! - **Spans.** Where the answer's own teacher token ends inside the answer's own student token,
//!   its mass is followed into the teacher's next distribution: log-probabilities along a span add
//!   up, and its alternatives get their share too.
//! - **What is not known stays with the text.** The tail beyond the kept candidates, control
//!   tokens, and candidates that are themselves only the beginning of r carry mass to unknown
//!   tokens. It is neither spread nor normalised away (that would inflate the likeliest tokens):
//!   the loss leaves this share of its weight to the answer's own token.
//!
//! Drawn labels ([`crate::keeping`]) have no tail, and where no draw agrees with r nothing is known: the text
//! is learned. With equal vocabularies the teacher's distribution is taken as it is.

use crate::Result;
use crate::labels::{Labels, Piece, PromptLabels, TokenLabel};
use crate::reading::Reading;
use std::collections::HashMap;
use uspx_model::chat::{Answered, Chat};

/// Candidates less likely than this are not followed; they count as tail.
pub(crate) const FAINT: f64 = 1e-3;
/// Student tokens of context that a continuation is tokenised with (all of the answer where these
/// do not suffice).
const CONTEXT: usize = 6;

/// For each response token: student tokens and their probability by the teacher, ascending by
/// token. They sum to at most 1; the rest is not known. Empty where nothing is.
pub type Soft = Vec<Vec<(u32, f32)>>;

/// The teacher's probabilities over the student's tokens.
///
/// # Errors
/// Those of the student's tokenizer.
pub fn soft(reading: &Reading<'_>) -> Result<Soft> {
    let tokens = reading.response().len();
    match reading.aligner() {
        None => Ok(Soft::default()),
        Some(_) if reading.is_equal => Ok(identical(reading.labels, reading.prompt, tokens)),
        Some(aligner) => (0..tokens).map(|at| aligner.at(at)).collect(),
    }
}

/// Equal vocabularies: ids mean the same on both sides.
fn identical(labels: &Labels, prompt: &PromptLabels, tokens: usize) -> Soft {
    let id = |piece: u32| labels.pieces.get(piece as usize).map(|(id, _)| *id);
    let row = |label: &TokenLabel| {
        let all = label.candidates().filter_map(|(p, l)| Some((id(p)?, f64::from(l).exp())));
        gathered(all.collect(), 1.0)
    };
    let mut rows: Vec<_> = prompt.tokens.iter().map(row).collect();
    rows.resize(tokens, Vec::new());
    rows
}

/// Divides by `total`, sorts by token, and sees to it that rounding leaves no more than 1.
fn gathered(masses: HashMap<u32, f64>, total: f64) -> Vec<(u32, f32)> {
    let sum: f64 = masses.values().sum();
    let divisor = total.max(sum).max(f64::MIN_POSITIVE);
    let mut row: Vec<(u32, f32)> =
        masses.into_iter().map(|(id, m)| (id, (m / divisor) as f32)).collect();
    row.sort_unstable_by_key(|(id, _)| *id);
    row
}

/// The teacher's tokens of an answer beside the student's.
pub struct Aligner<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) prompt: &'a PromptLabels,
    pub(crate) student: &'a Chat,
    /// The student's response tokens.
    pub(crate) ids: &'a [u32],
    /// Their byte spans.
    pub(crate) spans: &'a [(u32, u32)],
    /// What they are of.
    pub(crate) answered: &'a Answered,
    /// Its end of turn.
    pub(crate) end: Option<u32>,
}

/// What is known about one student position.
#[derive(Default)]
struct Known {
    masses: HashMap<u32, f64>,
    /// Mass that may lie on any token.
    unknown: f64,
}

/// A position of the student, seen from the teacher's tokens.
pub(crate) struct Place {
    /// Which response token.
    pub at: usize,
    /// Its first byte.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

impl Aligner<'_> {
    /// Student tokens and their masses at response token `at`.
    fn at(&self, at: usize) -> Result<Vec<(u32, f32)>> {
        let Some(&(start, end)) = self.spans.get(at) else { return Ok(Vec::new()) };
        let place = Place { at, start: start as usize, end: end as usize };
        // The teacher's token that holds the byte; its end of turn stands at the answer's end.
        let holds = |t: &&TokenLabel| t.end > start || t.start == t.end;
        let Some(index) = self.prompt.tokens.iter().position(|t| holds(&t)) else {
            return Ok(Vec::new());
        };
        let mut known = Known::default();
        self.follow(&place, index, 1.0, &mut known)?;
        let total = known.masses.values().sum::<f64>() + known.unknown;
        Ok(gathered(known.masses, total))
    }

    /// Adds the candidates of teacher token `index`, which the answer reaches with probability
    /// `reached`.
    fn follow(&self, place: &Place, index: usize, reached: f64, known: &mut Known) -> Result<()> {
        let Some(label) = self.prompt.tokens.get(index) else {
            known.unknown += reached;
            return Ok(());
        };
        let listed: f64 = label.candidates().map(|(_, l)| f64::from(l).exp()).sum();
        known.unknown += reached * (1.0 - listed).max(0.0);
        for (piece, log_prob) in label.candidates() {
            let mass = reached * f64::from(log_prob).exp();
            if piece == label.piece && (label.end as usize) < place.end {
                self.follow(place, index + 1, mass, known)?;
            } else if mass < FAINT && piece != label.piece {
                known.unknown += mass;
            } else {
                self.candidate(place, label, piece, mass, known)?;
            }
        }
        Ok(())
    }

    fn candidate(
        &self,
        place: &Place,
        label: &TokenLabel,
        piece: u32,
        mass: f64,
        known: &mut Known,
    ) -> Result<()> {
        if piece == label.piece {
            // The answer itself, and this token reaches the end of the student's.
            self.add(self.ids.get(place.at).copied(), mass, known);
            return Ok(());
        }
        let from = label.start as usize;
        match self.labels.piece(piece) {
            Some(Piece::Text(bytes)) => self.text(place, from, bytes, mass, known),
            Some(Piece::End) if from == place.start => {
                self.add(self.end, mass, known);
                Ok(())
            }
            // The turn ends after bytes that the student's token would have begun with, or not at
            // all.
            Some(Piece::End) if from > place.start => self.text(place, from, b"", mass, known),
            Some(Piece::End) => Ok(()),
            Some(Piece::Control) | None => {
                known.unknown += mass;
                Ok(())
            }
        }
    }

    /// A candidate that says: from byte `from` on, the text is `bytes`.
    fn text(
        &self,
        place: &Place,
        from: usize,
        bytes: &[u8],
        mass: f64,
        known: &mut Known,
    ) -> Result<()> {
        let answer = self.prompt.answer.as_bytes();
        let said = match place.start.checked_sub(from) {
            // The teacher's token begins before the student's: it must agree with the bytes
            // between.
            Some(between) => {
                let fixed = answer.get(from..place.start).unwrap_or_default();
                if bytes.len() <= between {
                    if fixed.starts_with(bytes) {
                        known.unknown += mass;
                    }
                    return Ok(());
                }
                match bytes.strip_prefix(fixed) {
                    Some(rest) => rest.to_vec(),
                    None => return Ok(()),
                }
            }
            // It begins inside the student's own token, after bytes of the answer.
            None => [answer.get(place.start..from).unwrap_or_default(), bytes].concat(),
        };
        match self.first_token(place, &said)? {
            First::Token(id) => self.add(Some(id), mass, known),
            First::Joined => {}
            First::Unclear => known.unknown += mass,
        }
        Ok(())
    }

    fn add(&self, id: Option<u32>, mass: f64, known: &mut Known) {
        match id {
            Some(id) => *known.masses.entry(id).or_default() += mass,
            None => known.unknown += mass,
        }
    }

    /// The student's token at the place if the answer went on with `said`.
    pub(crate) fn first_token(&self, place: &Place, said: &[u8]) -> Result<First> {
        let near = place.at.saturating_sub(CONTEXT);
        match self.within(near, place, said)? {
            First::Joined if near > 0 => self.within(0, place, said),
            first => Ok(first),
        }
    }

    /// The same, tokenising from response token `from` on.
    fn within(&self, from: usize, place: &Place, said: &[u8]) -> Result<First> {
        let begin = self.spans.get(from).map_or(0, |s| s.0 as usize);
        let before = [
            self.answered.lead_of(from),
            self.prompt.answer.as_bytes().get(begin..place.start).unwrap_or_default(),
        ]
        .concat();
        let text = [before.as_slice(), said].concat();
        // A candidate may end inside a character: only whole ones can be tokenised.
        let whole = text.utf8_chunks().next().map_or("", |c| c.valid());
        if whole.len() <= before.len() {
            return Ok(self.same_bytes(said));
        }
        let ids = self.student.encode_continuing(whole)?;
        let fixed = self.ids.get(from..place.at).unwrap_or_default();
        Ok(match ids.strip_prefix(fixed).and_then(|rest| rest.first()) {
            Some(id) => First::Token(*id),
            None => First::Joined,
        })
    }

    /// Part of a character: only a student token of the very same bytes can stand for it.
    fn same_bytes(&self, said: &[u8]) -> First {
        let same = |t: &uspx_model::chat::TokenBytes| matches!(t, uspx_model::chat::TokenBytes::Text(b) if b == said);
        match self.student.tokens().iter().position(same) {
            Some(id) => First::Token(id as u32),
            None => First::Unclear,
        }
    }
}

/// What the student's tokenizer makes of a continuation.
pub(crate) enum First {
    /// This token comes next.
    Token(u32),
    /// The tokens before would have been others.
    Joined,
    /// It cannot be told.
    Unclear,
}

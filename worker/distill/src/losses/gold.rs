//! The hybrid loss of GOLD (general on-policy logit distillation; Patiño et al. 2025, in TRL 1.16
//! `GOLDTrainer` with `uld_use_hybrid_loss`), on given answers: tokens that both vocabularies have
//! are compared by KL, all others by the sizes of their probabilities alone.
//!
//! The answer is cut into chunks that both tokenisations end at the same byte
//! ([`crate::chunks`]). Of each side the distribution at a chunk's last token is taken, times the
//! probabilities of the chunk's own tokens before it (the chain rule; TRL's `bayesian` merging).
//! With t and s the teacher's and the student's, a chunk's term is
//!
//!   .6·Σ t(v)·ln(t(v)/s(v)) + .4·Σᵢ |t₍ᵢ₎ − s₍ᵢ₎|,
//!
//! the first sum over the tokens v that mean the same on both sides (equal bytes, or the end of the
//! turn), the second over the others' probabilities sorted, largest first: universal logit
//! distillation (Boizard et al. 2024). As in TRL, t and s are not normalised anew over either part.
//! Terms are summed over chunks, as cross-entropy is over tokens.
//!
//! What differs from TRL:
//!
//! - Labels hold the teacher's likeliest tokens, not all. The first sum is over those; the second
//!   is as long as the list of the teacher's others among them, which is a beginning of its whole
//!   sorted list. Of what is beyond nothing is said.
//! - Drawn labels ([`crate::keeping`]) are not for the second sum: shares of draws, sorted, are no beginning
//!   of the teacher's sorted list.
//! - A token of the student counts among the others if no token that some label names has its
//!   bytes: labels do not hold the whole of the teacher's vocabulary.
//! - KL from the teacher, TRL's `beta = 0` (its default is halfway to the reverse).
//! - The end of the turn is learned, too (TRL leaves it out by default): a student must end.

use super::pull::Pulls;
use super::{Lesson, Loss, placed};
use crate::Result;
use crate::chunks::{Chunk, chunks};
use crate::labels::{Labels, Piece};
use crate::reading::Reading;
use candle_core::Tensor;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use uspx_model::chat::{Chat, TokenBytes};

/// Weight of the tokens that both vocabularies have.
const MATCHED: f64 = 0.6;
/// Weight of the others.
const SORTED: f64 = 0.4;

/// GOLD's loss, for one student and some labels.
pub struct Gold {
    /// The student's tokens by their bytes.
    by_bytes: HashMap<Vec<u8>, u32>,
    /// The student's tokens that none of the labels' pieces has the bytes of, ascending.
    others: Vec<u32>,
}

/// What the teacher says of a chunk of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The student's response tokens; the distributions are compared at the last one.
    pub tokens: Range<usize>,
    /// The student's tokens that the teacher has too, with its probabilities: ascending by token.
    pub matched: Vec<(u32, f64)>,
    /// The teacher's probabilities of tokens that the student has not, largest first.
    pub sorted: Vec<f64>,
}

impl Gold {
    /// The student's token for a piece of the teacher's in the place of response token `at`.
    fn token(&self, reading: &Reading<'_>, at: usize, piece: u32) -> Option<u32> {
        match reading.piece(piece)? {
            Piece::Text(bytes) => {
                self.by_bytes.get(&[reading.lead_of(at), bytes].concat()).copied()
            }
            Piece::End => reading.end(),
            Piece::Control => None,
        }
    }

    fn merged(&self, reading: &Reading<'_>, chunk: Chunk) -> Option<Merged> {
        let at = chunk.student.end.checked_sub(1)?;
        let (last, before) = reading.prompt.tokens.get(chunk.teacher)?.split_last()?;
        let reached: f64 = before.iter().map(|label| f64::from(label.log_prob)).sum();
        let (mut matched, mut sorted) = (BTreeMap::new(), Vec::new());
        for (place, (piece, log_prob)) in last.candidates().enumerate() {
            let mass = (reached + f64::from(log_prob)).exp();
            let own = reading.is_equal.then(|| reading.labels.pieces.get(piece as usize));
            match own.map_or_else(|| self.token(reading, at, piece), |own| own.map(|(id, _)| *id)) {
                Some(id) => *matched.entry(id).or_insert(0.0) += mass,
                // Behind the kept ones stands the answer's own: its rank is not known.
                None if place < last.top.len() => sorted.push(mass),
                None => {}
            }
        }
        Some(Merged { tokens: chunk.student, matched: matched.into_iter().collect(), sorted })
    }
}

impl Loss for Gold {
    type Said = Vec<Merged>;

    fn new(labels: &[Labels], student: &Chat) -> Self {
        let mut by_bytes = HashMap::new();
        for (id, token) in (0..).zip(student.tokens()) {
            if let TokenBytes::Text(bytes) = token {
                by_bytes.entry(bytes.clone()).or_insert(id);
            }
        }
        let mut is_other = vec![true; student.tokens().len()];
        let pieces = labels.iter().flat_map(|labels| &labels.pieces);
        let named = pieces.filter_map(|(_, piece)| match piece {
            Piece::Text(bytes) => by_bytes.get(bytes),
            Piece::End | Piece::Control => None,
        });
        for id in named.chain(student.ends()) {
            if let Some(is_other) = is_other.get_mut(*id as usize) {
                *is_other = false;
            }
        }
        let others = (0..).zip(is_other).filter_map(|(id, is_other)| is_other.then_some(id));
        Self { others: others.collect(), by_bytes }
    }

    fn said(&self, reading: &Reading<'_>) -> Result<Self::Said> {
        let Some(spans) = reading.spans() else { return Ok(Vec::new()) };
        let all = chunks(&reading.teacher_spans(), spans);
        Ok(all.into_iter().filter_map(|chunk| self.merged(reading, chunk)).collect())
    }

    fn loss(
        &self,
        logits: &Tensor,
        hard: &[u32],
        lessons: &[&Lesson<Self::Said>],
        weight: f32,
    ) -> Result<Tensor> {
        let mut pulls = Pulls::new(logits)?;
        let own = pulls.own(hard)?;
        let mut text = vec![1.0; hard.len()];
        for pair in self.pairs(&pulls, &own, lessons)? {
            pair.add(&mut pulls, hard, f64::from(weight));
            let rows = text.get_mut(pair.first..=pair.last).unwrap_or_default();
            rows.fill(1.0 - f64::from(weight));
        }
        pulls.add_texts(hard, &own, &text);
        pulls.loss(logits)
    }
}

/// A chunk's two distributions.
struct Pair<'a> {
    /// Rows of the chunk: the first, and the last one, where it is compared.
    first: usize,
    last: usize,
    /// The student's log-probability of the chunk's tokens before the last.
    reached: f64,
    teacher: &'a Merged,
    /// The student's log-probabilities at the last row: of the matched tokens ...
    matched: Vec<f64>,
    /// ... and of the others, likeliest first.
    sorted: Vec<(u32, f64)>,
}

impl Gold {
    /// The chunks of all lessons.
    fn pairs<'a>(
        &self,
        pulls: &Pulls,
        own: &[f64],
        lessons: &'a [&Lesson<Vec<Merged>>],
    ) -> Result<Vec<Pair<'a>>> {
        let mut pairs = Vec::new();
        let mut asked = vec![Vec::new(); own.len()];
        for (base, said) in placed(lessons) {
            for teacher in said {
                let first = base + teacher.tokens.start;
                let last = (base + teacher.tokens.end).saturating_sub(1);
                let reached = own.get(first..last).unwrap_or_default().iter().sum();
                if let Some(asked) = asked.get_mut(last) {
                    *asked = teacher.matched.iter().map(|(id, _)| *id).collect();
                }
                let (matched, sorted) = (Vec::new(), Vec::new());
                pairs.push(Pair { first, last, reached, teacher, matched, sorted });
            }
        }
        let mut matched = pulls.log_probs(&asked)?;
        for pair in &mut pairs {
            pair.matched = matched.get_mut(pair.last).map(std::mem::take).unwrap_or_default();
        }
        let mut comparing: Vec<&mut Pair<'_>> =
            pairs.iter_mut().filter(|pair| !pair.teacher.sorted.is_empty()).collect();
        // A matched token may be among the others all the same, by what opens an answer.
        let count = |pair: &&mut Pair<'_>| {
            (pair.last, pair.teacher.sorted.len() + pair.teacher.matched.len())
        };
        let counts: Vec<(usize, usize)> = comparing.iter().map(count).collect();
        for (pair, mut likeliest) in
            comparing.iter_mut().zip(pulls.likeliest(&self.others, &counts)?)
        {
            let matched = &pair.teacher.matched;
            likeliest.retain(|(id, _)| matched.binary_search_by_key(id, |(id, _)| *id).is_err());
            likeliest.truncate(pair.teacher.sorted.len());
            pair.sorted = likeliest;
        }
        Ok(pairs)
    }
}

impl Pair<'_> {
    fn add(&self, pulls: &mut Pulls, hard: &[u32], weight: f64) {
        let mut before = 0.0;
        for ((id, t), log_prob) in self.teacher.matched.iter().zip(&self.matched) {
            let apart = if *t > 0.0 { t * (t.ln() - log_prob - self.reached) } else { 0.0 };
            pulls.add(weight * MATCHED * apart);
            pulls.pull(self.last, *id, weight * MATCHED * t);
            before += weight * MATCHED * t;
        }
        for (at, t) in self.teacher.sorted.iter().enumerate() {
            let Some((id, log_prob)) = self.sorted.get(at) else {
                // The student has no more tokens.
                pulls.add(weight * SORTED * t);
                continue;
            };
            let s = (log_prob + self.reached).exp();
            pulls.add(weight * SORTED * (s - t).abs());
            let slope = if s == *t { 0.0 } else { (s - t).signum() * s };
            pulls.pull(self.last, *id, -weight * SORTED * slope);
            before -= weight * SORTED * slope;
        }
        // The tokens before the last are in both parts as factors of s.
        for row in self.first..self.last {
            if let Some(token) = hard.get(row) {
                pulls.pull(row, *token, before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::proof::{holds, lesson, log_softmax};
    use super::*;

    const VOCABULARY: usize = 9;
    const HARD: [u32; 7] = [3, 1, 0, 5, 6, 8, 2];

    fn gold() -> Gold {
        Gold { by_bytes: HashMap::new(), others: vec![4, 5, 7, 8] }
    }

    fn merged(tokens: Range<usize>, matched: &[(u32, f64)], sorted: &[f64]) -> Merged {
        Merged { tokens, matched: matched.to_vec(), sorted: sorted.to_vec() }
    }

    /// Chunks of two tokens and of one; a prompt that nothing is said of; a chunk without tokens
    /// that both have, one without others, and one with more others than the student has.
    fn lessons() -> Vec<Lesson<Vec<Merged>>> {
        vec![
            lesson(
                3,
                vec![
                    merged(0..2, &[(0, 0.125), (3, 0.25)], &[0.25, 0.05]),
                    merged(2..3, &[], &[0.5, 0.1, 0.05, 0.02, 0.01]),
                ],
            ),
            lesson(1, vec![]),
            // Token 4 is matched although the table of others has it.
            lesson(3, vec![merged(0..2, &[(4, 0.0), (6, 0.75)], &[0.2, 0.01, 0.005, 0.001])]),
        ]
    }

    /// By the definition, on whole distributions.
    fn brute_force(logits: &[f64], weight: f64) -> f64 {
        let log_probs = log_softmax(logits, VOCABULARY);
        let own = |row: usize| log_probs[row][HARD[row] as usize];
        let mut total = 0.0;
        let mut covered = [false; 7];
        let mut first = 0;
        for lesson in lessons() {
            for chunk in lesson.said {
                let rows = first + chunk.tokens.start..first + chunk.tokens.end;
                let last = rows.end - 1;
                let before: f64 = (rows.start..last).map(|row| own(row).exp()).product();
                let s: Vec<f64> = log_probs[last].iter().map(|l| l.exp() * before).collect();
                let kl: f64 = chunk
                    .matched
                    .iter()
                    .filter(|(_, t)| *t > 0.0)
                    .map(|(id, t)| t * (t / s[*id as usize]).ln())
                    .sum();
                let is_other = |id: &usize| {
                    [4, 5, 7, 8].contains(id)
                        && chunk.matched.iter().all(|(matched, _)| *matched as usize != *id)
                };
                let mut others: Vec<f64> = (0..VOCABULARY).filter(is_other).map(|i| s[i]).collect();
                others.sort_by(|a, b| b.total_cmp(a));
                others.resize(chunk.sorted.len(), 0.0);
                let apart: f64 = others.iter().zip(&chunk.sorted).map(|(s, t)| (s - t).abs()).sum();
                total += weight * (0.6 * kl + 0.4 * apart);
                covered[rows].fill(true);
            }
            first += lesson.sequence.response_len();
        }
        for (row, covered) in covered.into_iter().enumerate() {
            total -= if covered { 1.0 - weight } else { 1.0 } * own(row);
        }
        total
    }

    #[test]
    fn agrees_with_brute_force_and_finite_differences() {
        holds(&gold(), &lessons(), &HARD, VOCABULARY, brute_force);
    }

    #[test]
    fn a_student_whose_every_token_is_matched_has_no_others_to_compare() {
        let all = Gold { others: vec![], ..gold() };
        let lessons = [lesson(1, vec![merged(0..1, &[(2, 0.5)], &[0.25])])];
        holds(&all, &lessons, &[2], VOCABULARY, |logits, weight| {
            let own = log_softmax(logits, VOCABULARY)[0][2];
            let teacher = 0.6 * 0.5 * (0.5f64.ln() - own) + 0.4 * 0.25;
            (1.0 - weight) * -own + weight * teacher
        });
    }
}

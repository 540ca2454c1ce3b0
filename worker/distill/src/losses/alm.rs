//! Approximate likelihood matching (Minixhofer, Vulić and Ponti 2025, arXiv 2503.20083): teacher
//! and student are to find the same stretches of the answer equally likely.
//!
//! The answer is cut into chunks that both tokenisations end at the same byte
//! ([`crate::chunks`]). With ln P and ln Q the teacher's and the student's log-probabilities of a
//! chunk's own tokens, and τ the temperature, the chunk's term is the binarised f-divergence with
//! f = KL, times τ:
//!
//!   τ·[ a·ln(a/b) + (1 − a)·ln((1 − a)/(1 − b)) ],  a = P^(1/τ), b = Q^(1/τ).
//!
//! - **Temperature.** τ = 100, as the authors use. A chunk's probability is a poor target as it is:
//!   that of a likely one is flat at 1, that of an unlikely one at 0. For a large τ the term tends
//!   to ln P − ln Q + ln P·ln(ln Q / ln P).
//! - **Threshold.** A chunk ends only where the two tokenizers mean nearly the same by its end: where
//!   the tokenisation bias ([`crate::bias`]) is above γ = 0.1 it is joined to the next one, as the
//!   authors do. They estimate the bias beforehand, from how often tokens occur; here the teacher's
//!   own probabilities at that place tell it.
//! - **Scale.** Times τ, the derivative by ln Q tends to −(1 − ln P / ln Q). Cross-entropy's is −1.
//!   So the term is cross-entropy's, in nats and summed over chunks as it is over tokens, damped by
//!   how much of the student's surprise is the teacher's too: nothing is left where they agree, and
//!   a student that is surer than its teacher is held back. That is why `teacher_weight` mixes the
//!   two without a further factor (the authors, who mix by gradients' sizes, leave it out).

use super::pull::Pulls;
use super::{Lesson, Loss, placed};
use crate::Result;
use crate::chunks::{chunks, joined};
use crate::labels::Labels;
use crate::reading::Reading;
use candle_core::Tensor;
use std::ops::Range;
use uspx_model::chat::Chat;

/// Chunks' log-probabilities are divided by it.
const TEMPERATURE: f64 = 100.0;
/// The largest tokenisation bias that a chunk may end with.
const BIAS: f64 = 0.1;
/// What keeps 1 − a and 1 − b above 0, in nats at the temperature.
const EPSILON: f64 = 1e-6;
/// Log-probabilities below count as this: that of what is impossible is −∞.
const LEAST: f64 = -1e6;

/// Approximate likelihood matching.
pub struct Alm;

/// A chunk of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// The student's response tokens.
    pub tokens: Range<usize>,
    /// The teacher's log-probability of the same bytes, in nats.
    pub log_prob: f64,
}

impl Loss for Alm {
    type Said = Vec<Likelihood>;

    fn new(_: &[Labels], _: &Chat) -> Self {
        Self
    }

    fn said(&self, reading: &Reading<'_>) -> Result<Self::Said> {
        let Some(aligner) = reading.aligner() else { return Ok(Vec::new()) };
        let all = chunks(&reading.teacher_spans(), aligner.spans);
        let may_end = |chunk: &_| Ok(reading.is_equal || aligner.bias(chunk)? <= BIAS);
        let likelihood = |chunk: crate::chunks::Chunk| {
            let labels = reading.prompt.tokens.get(chunk.teacher).unwrap_or_default();
            let log_prob = labels.iter().map(|label| f64::from(label.log_prob)).sum();
            Likelihood { tokens: chunk.student, log_prob }
        };
        Ok(joined::<crate::DistillError>(all, may_end)?.into_iter().map(likelihood).collect())
    }

    fn loss(
        &self,
        logits: &Tensor,
        hard: &[u32],
        lessons: &[&Lesson<Self::Said>],
        weight: f32,
    ) -> Result<Tensor> {
        let weight = f64::from(weight);
        let mut pulls = Pulls::new(logits)?;
        let own = pulls.own(hard)?;
        let mut text = vec![1.0; hard.len()];
        for (first, chunk) in
            placed(lessons).flat_map(|(first, said)| said.iter().map(move |c| (first, c)))
        {
            let rows = first + chunk.tokens.start..first + chunk.tokens.end;
            let log_prob = own.get(rows.clone()).unwrap_or_default().iter().sum();
            let (nats, slope) = divergence(chunk.log_prob, log_prob);
            pulls.add(weight * nats);
            for row in rows {
                if let Some((token, text)) = hard.get(row).zip(text.get_mut(row)) {
                    pulls.pull(row, *token, -weight * slope);
                    *text = 1.0 - weight;
                }
            }
        }
        pulls.add_texts(hard, &own, &text);
        pulls.loss(logits)
    }
}

/// The term of a chunk from both sides' log-probabilities, in nats, and its derivative by the
/// student's.
fn divergence(teacher: f64, student: f64) -> (f64, f64) {
    let at_temperature = |nats: f64| nats.clamp(LEAST, 0.0) / TEMPERATURE - EPSILON;
    let (ln_a, ln_b) = (at_temperature(teacher), at_temperature(student));
    // 1 − a and 1 − b.
    let (not_a, not_b) = (-ln_a.exp_m1(), -ln_b.exp_m1());
    let (a, b) = (ln_a.exp(), ln_b.exp());
    let value = TEMPERATURE * (a * (ln_a - ln_b) + not_a * (not_a.ln() - not_b.ln()));
    (value, (b - a) / not_b)
}

#[cfg(test)]
mod tests {
    use super::super::proof::{holds, lesson, log_softmax};
    use super::*;

    const VOCABULARY: usize = 7;
    const HARD: [u32; 7] = [3, 1, 0, 5, 6, 2, 2];

    fn chunk(tokens: Range<usize>, log_prob: f64) -> Likelihood {
        Likelihood { tokens, log_prob }
    }

    /// A prompt of two chunks, one that nothing is said of, one with a chunk and a token outside.
    fn lessons() -> Vec<Lesson<Vec<Likelihood>>> {
        vec![
            lesson(3, vec![chunk(0..2, -0.7), chunk(2..3, -4.0)]),
            lesson(1, vec![]),
            lesson(3, vec![chunk(0..2, -9.5)]),
        ]
    }

    /// By the definition, with powers in the place of logarithms.
    fn brute_force(logits: &[f64], weight: f64) -> f64 {
        let own: Vec<f64> = log_softmax(logits, VOCABULARY)
            .iter()
            .zip(HARD)
            .map(|(row, token)| row[token as usize])
            .collect();
        let binary = |p: f64, q: f64| {
            let floor = (-EPSILON).exp();
            let (a, b) = (p.powf(1.0 / TEMPERATURE) * floor, q.powf(1.0 / TEMPERATURE) * floor);
            TEMPERATURE * (a * (a / b).ln() + (1.0 - a) * ((1.0 - a) / (1.0 - b)).ln())
        };
        let chunks = [(0..2, -0.7f64), (2..3, -4.0), (4..6, -9.5)];
        let terms = chunks.map(|(rows, teacher)| {
            binary(teacher.exp(), own[rows].iter().map(|l| l.exp()).product())
        });
        let text = |row: usize| if [3, 6].contains(&row) { 1.0 } else { 1.0 - weight };
        let text = (0..HARD.len()).map(|row| text(row) * -own[row]);
        text.sum::<f64>() + weight * terms.iter().sum::<f64>()
    }

    #[test]
    fn agrees_with_brute_force_and_finite_differences() {
        holds(&Alm, &lessons(), &HARD, VOCABULARY, brute_force);
    }

    #[test]
    fn its_scale_is_that_of_cross_entropy() {
        for (teacher, student) in [(-0.01, -2.0), (-1.0, -2.0), (-3.0, -2.0), (-20.0, -2.0)] {
            let (value, slope) = divergence(teacher, student);
            let limit = -(1.0 - teacher / student);
            assert!((slope - limit).abs() < 0.12 * (1.0 + limit.abs()), "{slope}, {limit}");
            let ratio: f64 = student / teacher;
            let limit = teacher - student + teacher * ratio.ln();
            assert!((value - limit).abs() < 0.12 * (1.0 + limit), "{value}, {limit}");
        }
        let (value, slope) = divergence(-2.0, -2.0);
        assert!(value.abs() < 1e-12 && slope.abs() < 1e-12);
    }

    #[test]
    fn what_is_certain_or_impossible_gives_numbers() {
        for teacher in [0.0, -1e-9, -50.0, -1e5, f64::NEG_INFINITY] {
            for student in [1e-9, 0.0, -1e-9, -50.0, -1e5] {
                let (value, slope) = divergence(teacher, student);
                assert!(value.is_finite() && slope.is_finite(), "{teacher}, {student}");
                assert!(value >= -1e-9, "{teacher}, {student}: {value}");
            }
        }
    }
}

//! Reverse KL from the teacher on the student's own answers: what MiniLLM (Gu et al. 2024, arXiv
//! 2306.08543) and GKD (Agarwal et al. 2024, arXiv 2306.13649) learn there, with the teacher's distribution
//! carried over by bytes to the student's tokens ([`crate::align`]).
//!
//! At each response position, with p the student's distribution, q the teacher's known masses and K the
//! tokens that they are of: loss = Σᵥ∈K p(v)·ln(p(v)/q(v)) + r·ln(r/u), r = 1 − Σ_K p, u = 1 − Σ_K q. What
//! is not known of the teacher is one outcome, as all tokens outside of K are one of the student's: the KL of
//! the two coarser distributions, which is at most that of the whole ones. Its derivative by ln p(v) is
//! p(v)·[ln(p(v)/q(v)) − ln(r/u)].
//!
//! Summed over all tokens in the place of the one that was drawn, it is the mean of the policy gradient
//! with ln q − ln p as the advantage ("on-policy distillation", Thinking Machines 2025): the same direction
//! without the noise of the draw. What a token does to later ones is left out, as there.
//!
//! The answer's text is the student's own: it is not learned, neither beside the teacher's word nor where
//! the teacher says nothing. `weight` is a factor.

use super::pull::Pulls;
use super::{Lesson, Loss, masses};
use crate::Result;
use crate::align::{Soft, soft};
use crate::labels::Labels;
use crate::reading::Reading;
use candle_core::Tensor;
use uspx_model::chat::Chat;

/// Masses of the teacher's below count as this: stored log-probabilities have half precision, and the
/// logarithm of what is left of 1 must not be that of a rounding error.
const LEAST: f64 = 1e-4;
/// The same of the student's, in doubles.
const LEAST_OWN: f64 = 1e-9;

/// Reverse KL against the teacher's distribution carried over by bytes.
pub struct ReverseKl;

impl Loss for ReverseKl {
    type Said = Soft;

    fn new(_: &[Labels], _: &Chat) -> Self {
        Self
    }

    fn said(&self, reading: &Reading<'_>) -> Result<Soft> {
        soft(reading)
    }

    fn loss(
        &self,
        logits: &Tensor,
        _: &[u32],
        lessons: &[&Lesson<Soft>],
        weight: f32,
    ) -> Result<Tensor> {
        let weight = f64::from(weight);
        let mut pulls = Pulls::new(logits)?;
        let teacher = masses(lessons);
        let ids: Vec<Vec<u32>> =
            teacher.iter().map(|row| row.iter().map(|(id, _)| *id).collect()).collect();
        let own = pulls.log_probs(&ids)?;
        for (row, (own, teacher)) in own.iter().zip(teacher).enumerate() {
            if teacher.is_empty() {
                continue;
            }
            let (nats, slopes) = divergence(own, teacher);
            pulls.add(weight * nats);
            for ((id, _), slope) in teacher.iter().zip(slopes) {
                pulls.pull(row, *id, -weight * slope);
            }
        }
        pulls.loss(logits)
    }
}

/// The term of a row, from the student's log-probabilities of the tokens that the teacher's masses are of;
/// in nats, and its derivatives by these.
fn divergence(own: &[f64], teacher: &[(u32, f32)]) -> (f64, Vec<f64>) {
    let left = |known: f64, least: f64| (1.0 - known).max(least);
    let r = left(own.iter().map(|l| l.exp()).sum(), LEAST_OWN);
    let u = left(teacher.iter().map(|(_, mass)| f64::from(*mass)).sum(), LEAST);
    let rest = (r / u).ln();
    let mut nats = r * rest;
    let slope = |(log_prob, (_, mass)): (&f64, &(u32, f32))| {
        let (p, ratio) = (log_prob.exp(), log_prob - f64::from(*mass).max(LEAST).ln());
        nats += p * ratio;
        p * (ratio - rest)
    };
    let slopes = own.iter().zip(teacher).map(slope).collect();
    (nats, slopes)
}

#[cfg(test)]
mod tests {
    use super::super::proof::{holds, lesson, log_softmax, logits};
    use super::*;
    use candle_core::{Device, Var};

    const VOCABULARY: usize = 7;
    const HARD: [u32; 5] = [3, 1, 0, 5, 2];

    /// Two answers and between them one that nothing is said of; a row of nothing, one where all is known,
    /// and a mass that is too small to count as it is.
    fn lessons() -> Vec<Lesson<Soft>> {
        vec![
            lesson(2, vec![vec![(0, 0.5), (3, 0.25)], vec![]]),
            lesson(1, vec![]),
            lesson(2, vec![vec![(4, 0.25), (5, 0.75)], vec![(1, 0.5), (2, 1e-7)]]),
        ]
    }

    /// By the definition, outcome by outcome.
    fn brute_force(logits: &[f64], weight: f64) -> f64 {
        let p = log_softmax(logits, VOCABULARY);
        let known = [(0, vec![(0, 0.5), (3, 0.25)], 0.25), (3, vec![(4, 0.25), (5, 0.75)], 1e-4)];
        let last = (4, vec![(1, 0.5f64), (2, 1e-4)], 1.0 - 0.5 - f64::from(1e-7f32));
        let mut total = 0.0;
        for (row, masses, unknown) in known.into_iter().chain([last]) {
            let p: Vec<f64> = p[row].iter().map(|l| l.exp()).collect();
            let named = |v: &usize| masses.iter().any(|(id, _)| id == v);
            let rest: f64 = (0..VOCABULARY).filter(|v| !named(v)).map(|v| p[v]).sum();
            let of = |(id, q): &(usize, f64)| p[*id] * (p[*id] / q).ln();
            total += masses.iter().map(of).sum::<f64>() + rest * (rest / unknown).ln();
        }
        weight * total
    }

    #[test]
    fn agrees_with_brute_force_and_finite_differences() {
        holds(&ReverseKl, &lessons(), &HARD, VOCABULARY, brute_force);
    }

    #[test]
    fn it_is_the_mean_of_the_policy_gradient_over_what_could_be_drawn() {
        let q = [0.25f32, 0.125, 0.125, 0.0625, 0.0625, 0.25, 0.125];
        let lesson = lesson(1, vec![(0..).zip(q).collect()]);
        let start = logits(1, VOCABULARY);
        let x = Var::from_slice(&start, (1, VOCABULARY), &Device::Cpu).unwrap();
        let loss = ReverseKl.loss(&x, &[0], &[&lesson], 1.0).unwrap();
        let gradient = loss.backward().unwrap().get(&x).unwrap().flatten_all().unwrap();
        let log_p = &log_softmax(&start, VOCABULARY)[0];
        for (at, got) in gradient.to_vec1::<f64>().unwrap().into_iter().enumerate() {
            // −advantage·∂ln p(drawn)/∂logit, weighed by how likely the draw is.
            let draw = |(drawn, l): (usize, &f64)| {
                let advantage = f64::from(q[drawn]).ln() - l;
                let one = if drawn == at { 1.0 } else { 0.0 };
                l.exp() * -advantage * (one - log_p[at].exp())
            };
            let want: f64 = log_p.iter().enumerate().map(draw).sum();
            assert!((got - want).abs() < 1e-6, "{at}: {got} against {want}");
        }
    }

    #[test]
    fn what_is_certain_or_impossible_gives_numbers() {
        for own in [0.0, -1e-12, -40.0, -1e3] {
            for mass in [0.0, 1e-30, 0.5, 1.0] {
                let (nats, slopes) = divergence(&[own], &[(0, mass)]);
                assert!(nats.is_finite() && slopes[0].is_finite(), "{own}, {mass}");
            }
        }
    }
}

//! What labels keep of the teacher's next-token distribution.
//!
//! Of its likeliest tokens alone the rest is not known, and left to the answer's text: what is learned is
//! no longer what the teacher says. Tokens *drawn* from it with replacement, each kept with its share of
//! the draws, say it right in the mean: so is every loss that is linear in the teacher's probabilities,
//! and the gradient of cross-entropy and of KL from the teacher (random sampling knowledge distillation,
//! Anshumann et al. 2025, arXiv 2503.16870; here drawn at temperature 1, so that no draw needs a weight).

use crate::labels::PromptLabels;
use crate::{DistillError, Result, codec};
use half::f16;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use uspx_domain::Digest;

/// What is kept at each place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// So many of the likeliest tokens, and how likely the rest is.
    Likeliest(u32),
    /// The tokens of some draws, and nothing else.
    Sampled {
        /// Draws at each place.
        draws: u32,
        /// Equal seeds, equal draws of equal answers, whatever they are labelled with; but for what the
        /// rounding of a batch of another shape moves over the edge between two tokens.
        seed: u64,
    },
}

impl Keeping {
    /// Refuses what labels cannot hold.
    ///
    /// # Errors
    /// Nothing would be kept, or more than the format's bound.
    pub fn check(self) -> Result<()> {
        let (what, most) = match self {
            Self::Likeliest(top_k) => ("top_k", top_k),
            Self::Sampled { draws, .. } => ("the number of draws", draws),
        };
        if (1..=codec::MAX_TOP_K).contains(&most) {
            return Ok(());
        }
        let bound = codec::MAX_TOP_K;
        Err(DistillError::Recipe(format!("{what} is {most}, 1 to {bound} are possible")))
    }

    /// What keeps the rows of one answer, in their order.
    pub(crate) fn of(self, answer: &PromptLabels) -> Keeper {
        match self {
            Self::Likeliest(count) => Keeper { count, random: None },
            Self::Sampled { draws, seed } => {
                Keeper { count: draws, random: Some(random(seed, answer)) }
            }
        }
    }
}

/// Draws of one answer: answers are batched by what there is memory for, which is not to matter.
fn random(seed: u64, answer: &PromptLabels) -> ChaCha8Rng {
    let id = answer.prompt.id.as_bytes();
    let (seed, length) = (seed.to_le_bytes(), (id.len() as u64).to_le_bytes());
    let all = [&seed, &length, id, answer.answer.as_bytes()].concat();
    ChaCha8Rng::from_seed(Digest::of(&all).0)
}

/// Keeps what is asked for of one row after another.
pub(crate) struct Keeper {
    count: u32,
    /// Where it draws.
    random: Option<ChaCha8Rng>,
}

/// What is kept of a row, in log-probabilities rounded as they are stored.
pub(crate) struct Kept {
    /// Of the answer's own token, not rounded.
    pub own: f32,
    /// Of the kept tokens, likeliest first (of equals, the lower id).
    pub top: Vec<(u32, f32)>,
    /// Probability of the rest.
    pub tail: f32,
}

impl Keeper {
    /// Keeps of a row of log-probabilities, in which `own` is the answer's token.
    pub fn keep(&mut self, row: &[f32], own: u32) -> Kept {
        let (top, tail) = match &mut self.random {
            None => likeliest(row, self.count as usize),
            Some(random) => (drawn(row, self.count, random), 0.0),
        };
        let own = row.get(own as usize).copied().unwrap_or(f32::NEG_INFINITY);
        Kept { own, top, tail }
    }
}

fn rank(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn rounded(log_prob: f32) -> f32 {
    f16::from_f32(log_prob).to_f32()
}

/// The `k` largest log-probabilities of a row, and the probability of the rest.
fn likeliest(row: &[f32], k: usize) -> (Vec<(u32, f32)>, f32) {
    let mut order: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
    if k < order.len() {
        order.select_nth_unstable_by(k, rank);
    }
    let rest = order.split_off(k.min(order.len()));
    order.sort_by(rank);
    let tail: f64 = rest.iter().map(|(_, l)| f64::from(*l).exp()).sum();
    // A vector of its own: collected in place it would keep the whole vocabulary's memory.
    let mut top = Vec::with_capacity(order.len());
    top.extend(order.iter().map(|(id, l)| (*id, rounded(*l))));
    (top, tail.min(1.0) as f32)
}

/// The tokens of so many draws from a row with replacement, each with the logarithm of its share.
fn drawn(row: &[f32], draws: u32, random: &mut ChaCha8Rng) -> Vec<(u32, f32)> {
    let mass = |log_prob: &f32| f64::from(*log_prob).exp();
    let total: f64 = row.iter().map(mass).sum();
    let mut places: Vec<f64> = (0..draws).map(|_| total * random.random::<f64>()).collect();
    places.sort_by(f64::total_cmp);
    let (mut left, mut reached, mut top) = (places.as_slice(), 0.0, Vec::new());
    for (id, log_prob) in (0..).zip(row) {
        reached += mass(log_prob);
        let count = left.iter().take_while(|place| **place < reached).count();
        if count > 0 {
            top.push((id, rounded((count as f64 / f64::from(draws)).ln() as f32)));
            left = left.get(count..).unwrap_or_default();
        }
    }
    top.sort_by(rank);
    top
}

#[cfg(test)]
mod tests;

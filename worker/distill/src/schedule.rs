//! How the optimiser moves: learning rate over time, gradients kept in bounds, batches in seeded
//! order.

use crate::Result;
use candle_core::Var;
use candle_core::backprop::GradStore;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use uspx_domain::DistilRecipe;
use uspx_model::batch::pack;

/// Share of the steps in which the learning rate rises.
const WARM_UP: f64 = 0.05;
/// Share of its peak that the rate ends with.
const FLOOR: f64 = 0.02;

/// The learning rate at `step` (from 0) of `steps`: a linear rise, then half a cosine down.
pub fn rate(peak: f64, step: u32, steps: u32) -> f64 {
    let (step, steps) = (f64::from(step), f64::from(steps.max(1)));
    let rise = (steps * WARM_UP).max(1.0);
    if step < rise {
        return peak * (step + 1.0) / rise;
    }
    let through = ((step - rise) / (steps - rise).max(1.0)).min(1.0);
    peak * (FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + (std::f64::consts::PI * through).cos()))
}

/// By what all gradients are to be multiplied so that their joint norm is at most `bound`.
///
/// # Errors
/// Those of the tensor library.
pub fn shrink(gradients: &GradStore, vars: &[Var], bound: f64) -> Result<f64> {
    let mut squares = 0.0;
    for gradient in vars.iter().filter_map(|v| gradients.get(v)) {
        squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    let norm = squares.sqrt();
    Ok(if norm > bound { bound / norm } else { 1.0 })
}

/// The batches of every epoch of a training on sequences of those lengths.
pub fn epochs(lengths: &[usize], recipe: &DistilRecipe) -> Vec<Vec<Vec<usize>>> {
    let mut random = ChaCha8Rng::seed_from_u64(recipe.seed ^ 0x5eed);
    let draw = |_| epoch(lengths, recipe.batch_tokens as usize, &mut random);
    (0..recipe.epochs).map(draw).collect()
}

/// Batches sorted by length within a window of this many, so that little is padded and every
/// epoch's batches differ.
const WINDOW: usize = 16;

/// The batches of one epoch: indices of sequences of those lengths, at most `tokens` padded tokens
/// each, all of them once.
pub fn epoch(lengths: &[usize], tokens: usize, random: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.shuffle(random);
    let length = |i: &usize| lengths.get(*i).copied().unwrap_or(0);
    let total: usize = order.iter().map(length).sum();
    let windows = total.div_ceil(tokens * WINDOW).max(1);
    let mut batches = Vec::new();
    for window in order.chunks(order.len().div_ceil(windows).max(1)) {
        let lengths: Vec<usize> = window.iter().map(length).collect();
        let back =
            |group: Vec<usize>| group.into_iter().filter_map(|i| window.get(i).copied()).collect();
        batches.extend(pack(&lengths, tokens).into_iter().map(back).collect::<Vec<Vec<usize>>>());
    }
    batches.shuffle(random);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls() {
        let rates: Vec<f64> = (0..100).map(|s| rate(1.0, s, 100)).collect();
        assert!(rates[..5].windows(2).all(|w| w[0] < w[1]));
        assert!((rates[4] - 1.0).abs() < 1e-9);
        assert!(rates[5..].windows(2).all(|w| w[0] >= w[1]));
        assert!(rates[99] < 0.03);
    }

    #[test]
    fn an_epoch_holds_every_lesson_once_and_shuffles() {
        let lengths: Vec<usize> = (0..300).map(|i| 5 + i * 7 % 40).collect();
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let first = epoch(&lengths, 200, &mut random);
        let second = epoch(&lengths, 200, &mut random);
        for batches in [&first, &second] {
            let mut all: Vec<usize> = batches.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..300).collect::<Vec<_>>());
            for batch in batches.iter() {
                let longest = batch.iter().map(|i| lengths[*i]).max().unwrap();
                assert!(longest * batch.len() <= 200);
            }
        }
        assert_ne!(first, second);
        assert_eq!(first, epoch(&lengths, 200, &mut ChaCha8Rng::seed_from_u64(5)));
    }
}

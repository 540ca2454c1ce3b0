//! The loss of an SAE on a batch, and its gradient by hand: everything but the encoder's product
//! follows the few active features.

use crate::codes::Codes;
use crate::number::{Number, add_scaled, dot, row_sum, variance};
use crate::parameters::{Parameters, row_of};
use crate::select::{Select, largest};
use rayon::prelude::*;

/// What dead features are to learn: the `k` best of them are to make up what the living leave over
/// (AuxK; Gao et al. 2024, appendix A.2).
#[derive(Debug, Clone, Copy)]
pub struct Auxiliary<'a> {
    /// Which features are dead.
    pub dead: &'a [bool],
    /// How many of them a row uses.
    pub k: usize,
    /// Weight of their loss.
    pub weight: f64,
}

/// What a batch says.
#[derive(Debug)]
pub struct Found<T> {
    /// The gradient of the sum of both losses. What the living leave over counts as given in the
    /// second.
    pub gradient: Parameters<T>,
    /// Which features each row has.
    pub codes: Codes<T>,
    /// Σ‖x̂ − x‖² ÷ Σ‖x − x̄‖²: the unexplained share of the variance.
    pub loss: T,
    /// weight · Σ‖ê − e‖² ÷ Σ‖e − ē‖², e being x − x̂, ê what dead features make of it.
    pub auxiliary: T,
}

/// Differentiates the losses of rows x, `[n, width]`.
pub fn gradient<T: Number>(
    parameters: &Parameters<T>,
    rows: &[T],
    select: &Select<T>,
    auxiliary: Option<Auxiliary<'_>>,
) -> Found<T> {
    let (width, features) = (parameters.width, parameters.features());
    let centred = parameters.centred(rows);
    let pre = parameters.pre_activations(&centred);
    let codes = select.codes(&pre, features);
    let made = parameters.decode(&codes);
    let error: Vec<T> = rows.iter().zip(&made).map(|(x, made)| *x - *made).collect();

    let mut gradient = Parameters::zero(width, features);
    let (loss, slope) = missed(made.iter().zip(rows), variance(rows, width));
    add_scaled(&mut gradient.decoder_bias, T::one(), &row_sum(&slope, width));
    follow(parameters, &codes, &centred, &slope, &mut gradient);

    let mut second = T::zero();
    if let Some((codes, weight)) = auxiliary.and_then(|aux| revived(&pre, features, &aux)) {
        let made = parameters.sums(&codes);
        let (loss, mut slope) = missed(made.iter().zip(&error), variance(&error, width));
        second = loss * weight;
        slope.iter_mut().for_each(|s| *s *= weight);
        follow(parameters, &codes, &centred, &slope, &mut gradient);
    }
    Found { gradient, codes, loss, auxiliary: second }
}

/// Σ(made − wanted)² ÷ scale, and its derivative by each of `made`.
fn missed<'a, T: Number>(pairs: impl Iterator<Item = (&'a T, &'a T)>, scale: T) -> (T, Vec<T>) {
    let scale = scale.max(T::min_positive_value());
    let apart: Vec<T> = pairs.map(|(made, wanted)| *made - *wanted).collect();
    let loss = dot(&apart, &apart) / scale;
    let two = T::of(2.0);
    (loss, apart.into_iter().map(|d| two * d / scale).collect())
}

/// The dead features that each row uses, of either sign so that all can learn, and the weight of
/// their loss: where they are few, they are asked for little.
fn revived<T: Number>(pre: &[T], features: usize, aux: &Auxiliary<'_>) -> Option<(Codes<T>, T)> {
    let dead = aux.dead.iter().filter(|dead| **dead).count();
    let k = aux.k.min(dead);
    if k == 0 {
        return None;
    }
    let may = |at: usize| aux.dead.get(at).copied().unwrap_or(false);
    let rows = pre.par_chunks_exact(features.max(1));
    let codes = rows.map(|row| largest(row, k, T::neg_infinity(), may)).collect();
    let share = (dead as f64 / aux.k as f64).min(1.0);
    Some((Codes::of_rows(codes), T::of(aux.weight * share)))
}

/// Adds what the codes contribute to the gradient, from the loss's slope by what they make,
/// `[n, width]`. Every feature is summed over its rows in order: threads change nothing.
fn follow<T: Number>(
    parameters: &Parameters<T>,
    codes: &Codes<T>,
    centred: &[T],
    slope: &[T],
    gradient: &mut Parameters<T>,
) {
    let width = parameters.width;
    let entries = codes.by_feature(parameters.features());
    let mut biases = vec![T::zero(); entries.len()];
    let encoder = gradient.encoder.par_chunks_exact_mut(width);
    let decoder = gradient.decoder.par_chunks_exact_mut(width);
    let rows = encoder.zip(decoder).zip(biases.par_iter_mut());
    rows.zip(entries.par_iter()).enumerate().for_each(
        |(feature, (((encoder, decoder), bias), entries))| {
            let direction = parameters.direction(feature as u32);
            for entry in entries {
                let slope = row_of(slope, width, entry.row);
                let value = codes.values().get(entry.at).copied().unwrap_or_default();
                let own = dot(slope, direction);
                add_scaled(decoder, value, slope);
                add_scaled(encoder, own, row_of(centred, width, entry.row));
                *bias += own;
            }
        },
    );
    // The decoder's bias is taken from the encoder's input.
    for (bias, encoder) in biases.iter().zip(parameters.encoder.chunks_exact(width)) {
        add_scaled(&mut gradient.decoder_bias, -*bias, encoder);
    }
    add_scaled(&mut gradient.encoder_bias, T::one(), &biases);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    const WIDTH: usize = 7;
    const FEATURES: usize = 19;

    /// Random parameters off every symmetry, and random rows.
    fn scene() -> (Parameters<f64>, Vec<f64>) {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut made = Parameters::random(WIDTH, FEATURES, &mut random);
        for list in made.lists_mut() {
            list.iter_mut().for_each(|v| *v += random.random_range(-0.3..0.3));
        }
        let rows = (0..23 * WIDTH).map(|_| random.random_range(-1.0..1.5)).collect();
        (made, rows)
    }

    fn dead() -> Vec<bool> {
        (0..FEATURES).map(|f| f % 3 == 0).collect()
    }

    /// The loss by the dense formula, with nothing of the code under test but the choice of
    /// features. `error` is what the living leave over, given.
    fn dense(p: &Parameters<f64>, rows: &[f64], kept: &[Codes<f64>; 2], error: &[f64]) -> f64 {
        let pre = |row: usize, f: usize| -> f64 {
            let x = &rows[row * WIDTH..][..WIDTH];
            let centred = x.iter().zip(&p.decoder_bias).map(|(x, b)| x - b);
            let weights = &p.encoder[f * WIDTH..][..WIDTH];
            centred.zip(weights).map(|(x, w)| x * w).sum::<f64>() + p.encoder_bias[f]
        };
        let squares = |codes: &Codes<f64>, wanted: &[f64], biased: bool| -> f64 {
            let mut sum = 0.0;
            for row in 0..codes.rows() {
                for at in 0..WIDTH {
                    let features = codes.row(row).map(|(f, _)| f as usize);
                    let made: f64 = features.map(|f| pre(row, f) * p.decoder[f * WIDTH + at]).sum();
                    let bias = if biased { p.decoder_bias[at] } else { 0.0 };
                    sum += (made + bias - wanted[row * WIDTH + at]).powi(2);
                }
            }
            sum
        };
        let share = dead().iter().filter(|d| **d).count() as f64 / 9.0;
        squares(&kept[0], rows, true) / variance(rows, WIDTH)
            + 0.25 * share * squares(&kept[1], error, false) / variance(error, WIDTH)
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        for select in [Select::TopK(4), Select::BatchTopK(3)] {
            let ((mut p, rows), dead) = (scene(), dead());
            let aux = Auxiliary { dead: &dead, k: 9, weight: 0.25 };
            let found = gradient(&p, &rows, &select, Some(aux));
            let pre = p.pre_activations(&p.centred(&rows));
            let (second, _) = revived(&pre, FEATURES, &aux).unwrap();
            let made = p.decode(&found.codes);
            let error: Vec<f64> = rows.iter().zip(&made).map(|(x, m)| x - m).collect();
            let kept = [found.codes.clone(), second];
            let whole = dense(&p, &rows, &kept, &error);
            assert!((whole - (found.loss + found.auxiliary)).abs() < 1e-12, "{whole}");
            assert!(found.auxiliary > 0.01 && found.loss > 0.1);
            let step = 1e-5;
            for list in 0..4 {
                for at in 0..p.lists()[list].len() {
                    let mut moved = |by: f64| {
                        p.lists_mut()[list][at] += by;
                        let loss = dense(&p, &rows, &kept, &error);
                        p.lists_mut()[list][at] -= by;
                        loss
                    };
                    let wanted = (moved(step) - moved(-step)) / (2.0 * step);
                    let given = found.gradient.lists()[list][at];
                    assert!((wanted - given).abs() < 1e-8, "{list} {at}: {wanted} {given}");
                }
            }
        }
    }

    #[test]
    fn without_dead_features_there_is_one_loss() {
        let (p, rows) = scene();
        let none = vec![false; FEATURES];
        let aux = Auxiliary { dead: &none, k: 3, weight: 1.0 };
        let [with, without] =
            [Some(aux), None].map(|aux| gradient(&p, &rows, &Select::TopK(4), aux));
        assert_eq!(with.gradient, without.gradient);
        assert_eq!(with.auxiliary, 0.0);
    }
}

//! GPTQ against rounding, and against the best of all codes where they can be enumerated.

use super::*;
use crate::grid;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PLAIN: GptqConfig =
    GptqConfig { group: 128, damping: 0.0, rule: ScaleRule::AbsMax, act_order: false };

fn weights(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Inputs that share a few hidden causes, with uneven energies.
fn correlated(rng: &mut ChaCha8Rng, inputs: usize) -> Hessian {
    let rows = 4 * inputs;
    let causes = DenseMatrix::from_fn(rows, inputs / 4 + 1, |_, _| rng.random_range(-1.0..1.0));
    let mix = DenseMatrix::from_fn(inputs / 4 + 1, inputs, |_, c| {
        rng.random_range(-1.0..1.0) * (1.0 + (c % 7) as f64)
    });
    let mut x = causes.times(&mix).unwrap();
    x.values_mut().iter_mut().for_each(|v| *v += rng.random_range(-0.3..0.3));
    let xt = DenseMatrix::from_fn(inputs, rows, |r, c| x.row(c)[r] * 2.0);
    Hessian::from_matrix(xt.times(&x).unwrap()).unwrap()
}

fn energy(h: &Hessian, w: &[f32], q: &QuantLinear) -> f64 {
    let d: Vec<f32> = w.iter().zip(q.dequantise()).map(|(a, b)| a - b).collect();
    h.output_energy(&d).unwrap()
}

#[test]
fn halves_the_error_of_rounding_on_correlated_inputs() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (w, h) = (weights(&mut rng, 16 * 384), correlated(&mut rng, 384));
    for rule in
        [ScaleRule::AbsMax, ScaleRule::Search { signed: false }, ScaleRule::Search { signed: true }]
    {
        let rounded = rtn::quantise(&w, 384, 128, rule, &h.matrix().diagonal()).unwrap();
        for act_order in [false, true] {
            let config = GptqConfig { damping: 0.01, rule, act_order, ..PLAIN };
            let mended = quantise(&w, &h, &config).unwrap();
            let ratio = energy(&h, &w, &mended.linear) / energy(&h, &w, &rounded);
            assert!(ratio < 0.5, "{rule:?}, act_order {act_order}: {ratio}");
        }
    }
}

#[test]
fn without_correlation_it_is_rounding() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let w = weights(&mut rng, 8 * 256);
    let identity =
        Hessian::from_matrix(DenseMatrix::from_fn(256, 256, |r, c| f64::from(r == c))).unwrap();
    for act_order in [false, true] {
        let config = GptqConfig { damping: 0.05, act_order, ..PLAIN };
        let mended = quantise(&w, &identity, &config).unwrap().linear;
        assert_eq!(mended, rtn::quantise(&w, 256, 128, ScaleRule::AbsMax, &[]).unwrap());
    }
}

/// The smallest error over all 16⁴ codes at the scale that GPTQ chose.
fn best_of_all(h: &Hessian, w: &[f32], scale: f32) -> f64 {
    let weight = |codes: u32, i: usize| w[i] - grid::value((codes >> (4 * i) & 15) as u8, scale);
    (0..1u32 << 16)
        .map(|codes| {
            let d: Vec<f64> = (0..4).map(|i| f64::from(weight(codes, i))).collect();
            (0..4)
                .map(|r| (0..4).map(|c| d[r] * h.matrix().row(r)[c] * d[c]).sum::<f64>())
                .sum::<f64>()
        })
        .fold(f64::INFINITY, f64::min)
}

/// GPTQ is Babai's nearest plane: where nothing is clipped its error is at most (s²/4)·Σ
/// 1/U[i,i]², U the factor of the inverse; and it cannot beat the exhaustive optimum.
#[test]
fn near_the_exhaustive_optimum() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut found, mut optimum, mut rounded) = (0.0, 0.0, 0.0);
    for _ in 0..40 {
        let (w, h) = (weights(&mut rng, 4), correlated(&mut rng, 4));
        let config = GptqConfig { group: 4, ..PLAIN };
        let q = quantise(&w, &h, &config).unwrap().linear;
        let scale = q.scales()[0].to_f32();
        let (ours, best) = (energy(&h, &w, &q), best_of_all(&h, &w, scale));
        let factor = inverse_factor(h.matrix()).unwrap().unwrap();
        let bound: f64 =
            factor.diagonal().iter().map(|u| f64::from(scale).powi(2) / 4.0 / u.powi(2)).sum();
        let clipped = q.codes().iter().any(|c| *c == 0 || *c == 15);
        assert!(ours >= best * 0.999 - 1e-9, "{ours} beats the optimum {best}");
        assert!(clipped || ours <= bound * 1.001, "{ours} above Babai's bound {bound}");
        (found, optimum) = (found + ours, optimum + best);
        rounded += energy(&h, &w, &rtn::quantise(&w, 4, 4, ScaleRule::AbsMax, &[]).unwrap());
    }
    // Strong correlation in four dimensions: a lucky combination of codes is worth much, and
    // neither finds it.
    assert!(
        optimum < found && found < 0.7 * rounded,
        "{found}, optimum {optimum}, rounding {rounded}"
    );
}

#[test]
fn dead_inputs_keep_their_rounded_weight() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let w = weights(&mut rng, 2 * 128);
    let mut h = correlated(&mut rng, 128).matrix().clone();
    for i in 0..128 {
        h.row_mut(i)[5] = 0.0;
        h.row_mut(5)[i] = 0.0;
    }
    let q = quantise(&w, &Hessian::from_matrix(h).unwrap(), &GptqConfig { damping: 0.01, ..PLAIN })
        .unwrap();
    assert_eq!(q.dead_inputs, 1);
    for n in 0..2 {
        assert_eq!(
            q.linear.codes()[n * 128 + 5],
            grid::code(w[n * 128 + 5], q.linear.scales()[n].to_f32())
        );
    }
}

#[test]
fn raises_the_damping_until_it_holds() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let w = weights(&mut rng, 128);
    // Symmetric but indefinite, as rounding can leave a Hessian of too few rows.
    let h = DenseMatrix::from_fn(128, 128, |r, c| if r == c { 1.0 } else { 1.02 });
    let q =
        quantise(&w, &Hessian::from_matrix(h).unwrap(), &GptqConfig { damping: 0.001, ..PLAIN })
            .unwrap();
    assert!((q.damping - 0.1).abs() < 1e-9, "{}", q.damping);
    let hopeless = DenseMatrix::from_fn(128, 128, |r, c| if r == c { 1.0 } else { f64::NAN });
    let e = quantise(&w, &Hessian::from_matrix(hopeless).unwrap(), &PLAIN).unwrap_err();
    assert!(matches!(e, ExportError::Indefinite { width: 128, .. }));
}

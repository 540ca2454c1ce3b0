//! GPTQ against rounding, and against the best of all codes where they can be enumerated.

use super::*;
use crate::hessian::Hessian;
use crate::matrix::SquareMatrix;
use crate::{ExportError, grid, rtn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PLAIN: GptqConfig =
    GptqConfig { group: 128, damping: 0.0, rule: ScaleRule::AbsMax, act_order: false };

fn weights(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Inputs that share a few hidden causes, with uneven energies.
fn correlated(rng: &mut ChaCha8Rng, inputs: usize) -> Hessian {
    let causes = inputs / 4 + 1;
    let mix: Vec<f64> = (0..causes * inputs)
        .map(|at| rng.random_range(-1.0..1.0) * (1.0 + (at % inputs % 7) as f64))
        .collect();
    let mut sum = vec![0.0; inputs * inputs];
    for _ in 0..4 * inputs {
        let mut row: Vec<f64> = (0..inputs).map(|_| rng.random_range(-0.3..0.3)).collect();
        for mix in mix.chunks_exact(inputs) {
            let cause = rng.random_range(-1.0..1.0);
            row.iter_mut().zip(mix).for_each(|(x, m)| *x += cause * m);
        }
        for (sums, x) in sum.chunks_exact_mut(inputs).zip(&row) {
            sums.iter_mut().zip(&row).for_each(|(s, y)| *s += 2.0 * x * y);
        }
    }
    square(inputs, sum)
}

fn square(side: usize, values: Vec<f64>) -> Hessian {
    Hessian::from_matrix(SquareMatrix::new(side, values).unwrap())
}

/// GPTQ by its configuration.
fn quantise(w: &[f32], h: &Hessian, config: &GptqConfig) -> crate::Result<Quantised> {
    super::quantise(w, &factored(h, config)?, config.rule)
}

fn factored(h: &Hessian, config: &GptqConfig) -> crate::Result<Factored> {
    Factored::of(h.clone(), config.group, (config.damping, config.act_order))
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
        let rounded = rtn::quantise(&w, 384, 128, rule, &h.energy()).unwrap();
        for act_order in [false, true] {
            let config = GptqConfig { damping: 0.01, rule, act_order, ..PLAIN };
            let mended = quantise(&w, &h, &config).unwrap();
            let left = energy(&h, &w, &mended.linear);
            assert!(
                (mended.output_energy - left).abs() < 1e-4 * left,
                "{} {left}",
                mended.output_energy
            );
            let ratio = left / energy(&h, &w, &rounded);
            assert!(ratio < 0.5, "{rule:?}, act_order {act_order}: {ratio}");
        }
    }
}

#[test]
fn without_correlation_it_is_rounding() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let w = weights(&mut rng, 8 * 256);
    let unit = (0..256 * 256).map(|at| f64::from(u8::from(at / 256 == at % 256))).collect();
    let identity = square(256, unit);
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
/// R[i,i]², R the factor; and it cannot beat the exhaustive optimum.
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
        let pivots = factored(&h, &config).unwrap().pivots();
        let bound: f64 = pivots.iter().map(|r| (f64::from(scale) / 2.0 * r).powi(2)).sum();
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
    let mut values = correlated(&mut rng, 128).matrix().values().to_vec();
    for i in 0..128 {
        values[i * 128 + 5] = 0.0;
        values[5 * 128 + i] = 0.0;
    }
    let (h, config) = (square(128, values), GptqConfig { damping: 0.01, ..PLAIN });
    let q = quantise(&w, &h, &config).unwrap();
    assert_eq!(factored(&h, &config).unwrap().dead_inputs(), 1);
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
    let of = |others: f64| {
        let value = |at: usize| if at / 128 == at % 128 { 1.0 } else { others };
        square(128, (0..128 * 128).map(value).collect())
    };
    // Symmetric but indefinite, as rounding can leave a Hessian of too few rows.
    let config = GptqConfig { damping: 0.001, ..PLAIN };
    let found = factored(&of(1.02), &config).unwrap();
    assert!((found.damping() - 0.1).abs() < 1e-9, "{}", found.damping());
    assert!(super::quantise(&w, &found, PLAIN.rule).is_ok());
    let e = factored(&of(f64::NAN), &PLAIN).unwrap_err();
    assert!(matches!(e, ExportError::Indefinite { width: 128, .. }));
}

/// Output rows are rounded in panels, and know nothing of each other.
#[test]
fn every_output_is_rounded_as_if_alone() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let (outputs, inputs) = (1100, 256);
    let (w, h) = (weights(&mut rng, outputs * inputs), correlated(&mut rng, inputs));
    let config = GptqConfig { damping: 0.01, act_order: true, ..PLAIN };
    let all = quantise(&w, &h, &config).unwrap();
    let mut energy = 0.0;
    for (first, rows) in [(0, 300), (300, 1), (301, 799)] {
        let own = &w[first * inputs..(first + rows) * inputs];
        let own = quantise(own, &h, &config).unwrap();
        energy += own.output_energy;
        let at = first * inputs..(first + rows) * inputs;
        assert_eq!(own.linear.codes(), &all.linear.codes()[at]);
        assert_eq!(own.linear.scales(), &all.linear.scales()[first * 2..(first + rows) * 2]);
    }
    assert!((energy - all.output_energy).abs() < 1e-9 * energy);
}

/// GPTQ as published, by the inverse's factor and updates of all later columns.
fn published(w: &[f32], h: &Hessian, (outputs, group): (usize, usize)) -> Vec<u8> {
    let inputs = h.inputs();
    // U = R⁻¹ by a triangular solve of each row.
    let mut r = h.matrix().clone();
    assert!(r.factor(&[]).unwrap());
    let u = crate::matrix::invert_triangle(&r.triangle(0..inputs), inputs);
    let mut codes = vec![0; w.len()];
    for n in 0..outputs {
        let mut row: Vec<f64> =
            w[n * inputs..(n + 1) * inputs].iter().map(|v| f64::from(*v)).collect();
        let mut scale = 0.0;
        for k in 0..inputs {
            if k.is_multiple_of(group) {
                let own: Vec<f32> = row[k..k + group].iter().map(|v| *v as f32).collect();
                scale = grid::scale(&own, &[], ScaleRule::AbsMax).unwrap().to_f32();
            }
            let code = grid::code(row[k] as f32, scale);
            codes[n * inputs + k] = code;
            let error = (row[k] - f64::from(grid::value(code, scale))) / u[k * inputs + k];
            (k + 1..inputs).for_each(|later| row[later] -= error * u[k * inputs + later]);
        }
    }
    codes
}

/// Across blocks, and with groups narrower and wider than one.
#[test]
fn the_codes_are_those_of_the_published_algorithm() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for (outputs, inputs, group) in [(9, 384, 128), (5, 320, 64), (4, 512, 256)] {
        let (w, h) = (weights(&mut rng, outputs * inputs), correlated(&mut rng, inputs));
        let ours = quantise(&w, &h, &GptqConfig { group, ..PLAIN }).unwrap().linear;
        assert_eq!(ours.codes(), published(&w, &h, (outputs, group)), "{inputs} in {group}");
    }
}

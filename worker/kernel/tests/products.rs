//! Every kernel family and entry point against plain f64 loops, on random shapes with tails.

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uspx_kernel::{Isa, Matrix};

fn random(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    // Sizes over some orders of magnitude, as activations have.
    (0..count).map(|_| rng.random_range(-1.0_f32..1.0) * 2.0_f32.powi(rng.random_range(-6..7))).collect()
}

fn mxfp4(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Matrix {
    let blocks = (0..rows * columns / 2).map(|_| rng.random()).collect();
    let scales = (0..rows * columns / 32).map(|_| rng.random_range(115..130)).collect();
    Matrix::mxfp4(rows, columns, blocks, scales).unwrap()
}

fn bf16(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Matrix {
    let values = random(rng, rows * columns);
    Matrix::bf16(rows, columns, values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect())
        .unwrap()
}

/// x·Wᵀ in f64, and the sum of absolute products that errors are measured by.
fn reference(w: &Matrix, x: &[f32], n: usize) -> Vec<(f64, f64)> {
    let values = w.expand();
    let c = w.columns();
    let mut out = Vec::new();
    for t in 0..n {
        for r in 0..w.rows() {
            let products = (0..c).map(|i| f64::from(x[t * c + i]) * f64::from(values[r * c + i]));
            out.push((products.clone().sum(), products.map(f64::abs).sum()));
        }
    }
    out
}

/// g·W in f64, likewise.
fn reference_transposed(w: &Matrix, g: &[f32], n: usize) -> Vec<(f64, f64)> {
    let values = w.expand();
    let (rows, c) = (w.rows(), w.columns());
    let mut out = Vec::new();
    for t in 0..n {
        for i in 0..c {
            let products = (0..rows).map(|r| f64::from(g[t * rows + r]) * f64::from(values[r * c + i]));
            out.push((products.clone().sum(), products.map(f64::abs).sum()));
        }
    }
    out
}

/// The largest error relative to the sum of absolute products.
fn worst(found: &[f32], expected: &[(f64, f64)]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let error = |(f, (e, size)): (&f32, &(f64, f64))| (f64::from(*f) - e).abs() / size.max(1e-30);
    found.iter().zip(expected).map(error).fold(0.0, f64::max)
}

/// What each family promises: f32 sums of two-piece or 16-bit activations.
fn check(w: &Matrix, n: usize, rng: &mut ChaCha8Rng) {
    let x = random(rng, n * w.columns());
    let g = random(rng, n * w.rows());
    let (forward, backward) = (reference(w, &x, n), reference_transposed(w, &g, n));
    for isa in Isa::available() {
        // Stale values must be overwritten.
        let mut y = vec![f32::NAN; n * w.rows()];
        w.multiply_with(isa, &x, n, &mut y).unwrap();
        let error = worst(&y, &forward);
        assert!(error < 3e-5, "{w:?} {isa:?} n {n}: {error:e}");
        let mut out = vec![f32::NAN; n * w.columns()];
        w.multiply_transposed_with(isa, &g, n, &mut out).unwrap();
        let error = worst(&out, &backward);
        assert!(error < 1e-5, "{w:?} transposed {isa:?} n {n}: {error:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn mxfp4_agrees_with_f64(rows in 1_usize..200, groups in 1_usize..12, n in 1_usize..80, seed: u64) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let w = mxfp4(rng, rows, groups * 32);
        check(&w, n, rng);
    }

    #[test]
    fn bf16_agrees_with_f64(rows in 1_usize..200, columns in 1_usize..300, n in 1_usize..80, seed: u64) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let w = bf16(rng, rows, columns);
        check(&w, n, rng);
    }
}

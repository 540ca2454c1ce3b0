//! Every kernel family and entry point against plain f64 loops on random shapes with tails, and the
//! promises about bits: the same from every int8 kernel, whatever the number of threads and of
//! tokens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // Clippy knows test functions, not their helpers.

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uspx_kernel::{Isa, KernelError, Matrix};

/// Values over some orders of magnitude, as activations have.
fn random(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| rng.random_range(-1.0_f32..1.0) * 2.0_f32.powi(rng.random_range(-6..7)))
        .collect()
}

fn mxfp4(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Matrix {
    let blocks = (0..rows * columns / 2).map(|_| rng.random()).collect();
    let scales = (0..rows * columns / 32).map(|_| rng.random_range(115..130)).collect();
    Matrix::mxfp4(rows, columns, blocks, scales).unwrap()
}

fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

fn bf16(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Matrix {
    let values = random(rng, rows * columns);
    Matrix::bf16(rows, columns, bf16_bytes(&values)).unwrap()
}

/// A sum of products in f64, and how far off a kernel may be.
struct Expected {
    sum: f64,
    /// Σ|w·x|: sums in f32 and activations in two pieces of bf16 are judged by it.
    size: f64,
    /// Σ|w|·(largest |x| of the group of 32)/4194303: the rounding of int8 kernels.
    rounding: f64,
}

/// Σ a\[i\]·w\[i\], with a's groups.
fn expected(a: &[f32], w: impl Fn(usize) -> f32) -> Expected {
    let mut e = Expected { sum: 0.0, size: 0.0, rounding: 0.0 };
    for (i, group) in a.chunks(32).enumerate() {
        let largest = group.iter().fold(0.0, |largest: f64, x| largest.max(f64::from(x.abs())));
        for (j, x) in group.iter().enumerate() {
            let w = f64::from(w(i * 32 + j));
            e.sum += w * f64::from(*x);
            e.size += (w * f64::from(*x)).abs();
            e.rounding += w.abs() * largest / 4_194_303.0;
        }
    }
    e
}

fn check(w: &Matrix, n: usize, rng: &mut ChaCha8Rng) {
    let (rows, columns, values) = (w.rows(), w.columns(), w.expand());
    let x = random(rng, n * columns);
    let g = random(rng, n * rows);
    let mut forward = Vec::new();
    let mut backward = Vec::new();
    for (x, g) in x.chunks(columns).zip(g.chunks(rows)) {
        forward.extend((0..rows).map(|r| expected(x, |i| values[r * columns + i])));
        backward.extend((0..columns).map(|c| expected(g, |i| values[i * columns + c])));
    }
    let mut plain = vec![f32::NAN; n * rows];
    w.multiply_f32(&x, n, &mut plain).unwrap();
    for (y, e) in plain.iter().zip(&forward) {
        assert!(
            (f64::from(*y) - e.sum).abs() <= 2e-6 * e.size,
            "{w:?} f32 n {n}: {y} for {}",
            e.sum
        );
    }
    for isa in Isa::available() {
        // Two pieces of bf16 are off by 2^-16 at most, f32 sums of a few hundred terms by less.
        let int8 = isa != Isa::Amx && format!("{w:?}").contains("mxfp4");
        // Stale values must be overwritten.
        let mut y = vec![f32::NAN; n * rows];
        w.multiply_with(isa, &x, n, &mut y).unwrap();
        for (y, e) in y.iter().zip(&forward) {
            let allowed = if int8 { 2e-6 * e.size + 1.01 * e.rounding } else { 1.6e-5 * e.size };
            assert!(
                (f64::from(*y) - e.sum).abs() <= allowed,
                "{w:?} {isa:?} n {n}: {y} for {}",
                e.sum
            );
        }
        let mut out = vec![f32::NAN; n * columns];
        w.multiply_transposed_with(isa, &g, n, &mut out).unwrap();
        for (y, e) in out.iter().zip(&backward) {
            let error = (f64::from(*y) - e.sum).abs();
            assert!(error <= 1.6e-5 * e.size, "{w:?} transposed {isa:?} n {n}: {y} for {}", e.sum);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

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

    #[test]
    fn int8_kernels_agree_to_the_bit(rows in 1_usize..150, groups in 1_usize..10, n in 1_usize..30, seed: u64) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let w = mxfp4(rng, rows, groups * 32);
        let x = random(rng, n * w.columns());
        let mut reference = vec![0.0; n * rows];
        w.multiply_with(Isa::Portable, &x, n, &mut reference).unwrap();
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Amx) {
            let mut y = vec![0.0; n * rows];
            w.multiply_with(isa, &x, n, &mut y).unwrap();
            prop_assert!(bits(&y) == bits(&reference), "{:?}", isa);
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Both products of one family.
fn both(w: &Matrix, isa: Isa, x: &[f32], g: &[f32], n: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut y, mut out) = (vec![0.0; n * w.rows()], vec![0.0; n * w.columns()]);
    w.multiply_with(isa, x, n, &mut y).unwrap();
    w.multiply_transposed_with(isa, g, n, &mut out).unwrap();
    (bits(&y), bits(&out))
}

#[test]
fn several_slices_panels_and_chunks_agree_with_f64() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let deep = mxfp4(rng, 70, 2 * 1024 + 96);
    check(&deep, 37, rng);
    let wide = bf16(rng, 1500, 1100);
    check(&wide, 5, rng);
    // More tokens than one chunk of packed activations holds (8 MiB at 4 bytes a value).
    let w = mxfp4(rng, 48, 2880);
    check(&w, 800, rng);
}

#[test]
fn no_bit_depends_on_the_number_of_threads() {
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    for w in [mxfp4(rng, 650, 320), bf16(rng, 650, 333)] {
        let n = 75;
        let (x, g) = (random(rng, n * w.columns()), random(rng, n * w.rows()));
        for isa in Isa::available() {
            let pools = [1, 2, 5].map(|threads| {
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
            });
            let results = pools.map(|pool| pool.install(|| both(&w, isa, &x, &g, n)));
            assert!(results.iter().all(|result| *result == results[0]), "{w:?} {isa:?}");
        }
    }
}

#[test]
fn no_bit_depends_on_the_other_tokens() {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    for w in [mxfp4(rng, 130, 2112), bf16(rng, 130, 2111)] {
        let n = 50;
        let (x, g) = (random(rng, n * w.columns()), random(rng, n * w.rows()));
        // The f32 products of the gemm crate promise nothing of the kind.
        for isa in Isa::available() {
            let exact_backward = isa == Isa::Amx;
            if !exact_backward && format!("{w:?}").contains("bf16") {
                continue;
            }
            let (y, out) = both(&w, isa, &x, &g, n);
            for token in [0, 17, 49] {
                let (x, g) =
                    (&x[token * w.columns()..][..w.columns()], &g[token * w.rows()..][..w.rows()]);
                let (y_alone, out_alone) = both(&w, isa, x, g, 1);
                assert!(y_alone == y[token * w.rows()..][..w.rows()], "{w:?} {isa:?} {token}");
                assert!(!exact_backward || out_alone == out[token * w.columns()..][..w.columns()]);
            }
        }
    }
}

#[test]
fn nan_and_infinity_come_out_in_their_token_alone() {
    let rng = &mut ChaCha8Rng::seed_from_u64(4);
    for w in [mxfp4(rng, 100, 160), bf16(rng, 100, 157)] {
        let n = 40;
        for (bad, quiet) in
            [(f32::NAN, true), (f32::from_bits(0x7f80_0001), true), (f32::INFINITY, false)]
        {
            let (mut x, mut g) = (random(rng, n * w.columns()), random(rng, n * w.rows()));
            x[20 * w.columns() + 77] = bad;
            g[20 * w.rows() + 77] = bad;
            for isa in Isa::available() {
                let (y, out) = both(&w, isa, &x, &g, n);
                for (values, width) in [(y, w.rows()), (out, w.columns())] {
                    for (i, value) in values.into_iter().map(f32::from_bits).enumerate() {
                        let hit = i / width == 20;
                        let shown = if quiet { value.is_nan() } else { !value.is_finite() };
                        assert!(
                            if hit { shown } else { value.is_finite() },
                            "{w:?} {isa:?} {bad} {i}: {value}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn nan_weights_come_out_and_are_found() {
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    let (rows, columns) = (40, 64);
    let mut scales = vec![120; rows * 2];
    scales[7 * 2 + 1] = 255;
    let blocks: Vec<u8> = (0..rows * columns / 2).map(|_| rng.random()).collect();
    let bad = Matrix::mxfp4(rows, columns, blocks, scales).unwrap();
    let mut values = random(rng, rows * columns);
    let good = Matrix::bf16(rows, columns, bf16_bytes(&values)).unwrap();
    assert!(bad.has_nan() && !good.has_nan() && !mxfp4(rng, 4, 64).has_nan());
    values[7 * columns + 40] = f32::NAN;
    let also_bad = Matrix::bf16(rows, columns, bf16_bytes(&values)).unwrap();
    values[7 * columns + 40] = f32::NEG_INFINITY;
    assert!(
        also_bad.has_nan() && Matrix::bf16(rows, columns, bf16_bytes(&values)).unwrap().has_nan()
    );
    for (w, isa) in Isa::available().into_iter().flat_map(|isa| [(&bad, isa), (&also_bad, isa)]) {
        let n = 3;
        let mut y = vec![0.0; n * rows];
        w.multiply_with(isa, &random(rng, n * columns), n, &mut y).unwrap();
        for (i, value) in y.iter().enumerate() {
            assert_eq!(value.is_nan(), i % rows == 7, "{isa:?} {i}");
        }
    }
}

#[test]
fn extreme_activations_keep_their_size() {
    // Near the largest f32, where rounding up to bf16 would make an infinity; tiny; and a whole
    // token of zeros.
    let w = Matrix::bf16(2, 32, bf16_bytes(&[0.25; 64])).unwrap();
    let four = Matrix::mxfp4(2, 32, vec![0x11; 32], vec![126, 126]).unwrap();
    assert_eq!(w.expand(), four.expand());
    for isa in Isa::available() {
        for w in [&w, &four] {
            for x in [f32::MAX / 16.0, f32::MAX / 32.0, 1e-30, 0.0] {
                let mut values = vec![0.0; 32];
                values[3] = x;
                let mut y = [f32::NAN; 2];
                w.multiply_with(isa, &values, 1, &mut y).unwrap();
                // Absolutely zero below 2^-100 in the int8 kernels, and never more than f32's last
                // bits off elsewhere.
                let close = |y: f32| (y - x * 0.25).abs() <= x * 0.25 * 2e-5;
                assert!(y.iter().all(|y| close(*y)), "{w:?} {isa:?} {x}: {y:?}");
            }
            let mut values = vec![0.0; 32];
            values[3] = f32::MAX;
            let mut y = [f32::NAN; 2];
            w.multiply_with(isa, &values, 1, &mut y).unwrap();
            assert!(
                y.iter().all(|y| y.is_finite() && (y / (f32::MAX * 0.25) - 1.0).abs() < 2e-5),
                "{isa:?} {y:?}"
            );
        }
    }
}

#[test]
fn mxfp4_expands_by_the_specification() {
    // OCP MX 1.0, E2M1: sign, two bits of exponent (bias 1), one of mantissa.
    let value = |code: u32| {
        let (exponent, mantissa) = ((code >> 1) & 3, f64::from(code & 1));
        let size = if exponent == 0 {
            mantissa / 2.0
        } else {
            (1.0 + mantissa / 2.0) * 2_f64.powi(exponent as i32 - 1)
        };
        if code & 8 == 0 { size } else { -size }
    };
    let mut blocks: Vec<u8> = (0..8).map(|i| (2 * i) | ((2 * i + 1) << 4)).collect();
    blocks.extend_from_within(..);
    for scale in [0, 1, 2, 100, 127, 200, 252] {
        let w = Matrix::mxfp4(1, 32, blocks.clone(), vec![scale]).unwrap();
        for (i, found) in w.expand().into_iter().enumerate() {
            let expected = value(i as u32 % 16) * 2_f64.powi(i32::from(scale) - 127);
            assert_eq!(f64::from(found), expected, "scale {scale} value {i}");
        }
    }
}

#[test]
fn wrong_lengths_are_refused_with_their_remedy() {
    let remedied =
        |error: KernelError, part: &str| assert!(error.to_string().contains(part), "{error}");
    remedied(Matrix::bf16(3, 5, vec![0; 29]).unwrap_err(), "30 bytes, but 29");
    remedied(Matrix::mxfp4(3, 48, vec![0; 72], vec![0; 3]).unwrap_err(), "multiple of 32");
    remedied(Matrix::mxfp4(3, 64, vec![0; 95], vec![0; 6]).unwrap_err(), "blocks");
    remedied(Matrix::mxfp4(3, 64, vec![0; 96], vec![0; 5]).unwrap_err(), "scales");
    remedied(Matrix::bf16(usize::MAX, 5, vec![]).unwrap_err(), "address space");
    let w = Matrix::bf16(3, 5, vec![0; 30]).unwrap();
    assert_eq!((w.rows(), w.columns(), w.bytes()), (3, 5, 30));
    remedied(w.multiply(&[0.0; 9], 2, &mut [0.0; 6]).unwrap_err(), "x must hold 2 rows of 5");
    remedied(w.multiply(&[0.0; 10], 2, &mut [0.0; 5]).unwrap_err(), "y must hold 2 rows of 3");
    remedied(
        w.multiply_transposed(&[0.0; 10], 2, &mut [0.0; 10]).unwrap_err(),
        "g must hold 2 rows of 3",
    );
    remedied(
        w.multiply_transposed(&[0.0; 6], 2, &mut [0.0; 9]).unwrap_err(),
        "out must hold 2 rows of 5",
    );
    w.multiply(&[], 0, &mut []).unwrap();
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.supported()) {
        remedied(w.multiply_with(isa, &[0.0; 5], 1, &mut [0.0; 3]).unwrap_err(), isa.name());
    }
}

#[test]
fn empty_sides_give_zeros() {
    let mut y = [1.0; 6];
    Matrix::bf16(3, 0, vec![]).unwrap().multiply(&[], 2, &mut y).unwrap();
    assert_eq!(y, [0.0; 6]);
    let mut out = [1.0; 64];
    Matrix::mxfp4(0, 32, vec![], vec![]).unwrap().multiply_transposed(&[], 2, &mut out).unwrap();
    assert_eq!(out, [0.0; 64]);
}

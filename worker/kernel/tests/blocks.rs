//! Products with GGUF's blocks: every kernel family against plain f64 loops, and the same bits from
//! all of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // Clippy knows test functions, not their helpers.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uspx_kernel::{BlockFormat, BlockMatrix, Isa};

const FORMATS: [BlockFormat; 5] =
    [BlockFormat::Q4_0, BlockFormat::Q8_0, BlockFormat::Q4K, BlockFormat::Q5K, BlockFormat::Q6K];

/// Random bytes with f16 factors between 2⁻⁶ and 2⁻³, of either sign.
fn random(rng: &mut ChaCha8Rng, format: BlockFormat, rows: usize, columns: usize) -> BlockMatrix {
    let size = format.block_bytes();
    let mut bytes: Vec<u8> =
        (0..rows * columns / format.block() * size).map(|_| rng.random()).collect();
    let places: &[usize] = match format {
        BlockFormat::Q4_0 | BlockFormat::Q8_0 => &[0],
        BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        BlockFormat::Q6K => &[208],
    };
    for block in bytes.chunks_exact_mut(size) {
        for at in places {
            let half: u16 = (rng.random_range(0..2u16) << 15) | rng.random_range(0x2400..0x3000);
            block[*at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
    }
    BlockMatrix::new(format, rows, columns, bytes).unwrap()
}

fn values(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| rng.random_range(-1.0_f32..1.0) * 2.0_f32.powi(rng.random_range(-6..7)))
        .collect()
}

fn shapes(format: BlockFormat) -> [(usize, usize); 3] {
    if format.block() == 32 {
        [(7, 32), (33, 288), (70, 896)]
    } else {
        [(7, 256), (33, 512), (70, 1280)]
    }
}

#[test]
fn every_kernel_agrees_with_plain_loops_and_all_to_the_bit() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for format in FORMATS {
        for (rows, columns) in shapes(format) {
            let w = random(&mut rng, format, rows, columns);
            let weights = w.expand();
            // Up to 8 rows every family multiplies integers; beyond, some go through f32.
            for n in [1, 2, 3, 5, 8, 40, 100] {
                let x = values(&mut rng, n * columns);
                let mut first: Option<Vec<f32>> = None;
                for isa in Isa::available() {
                    let mut y = vec![f32::NAN; n * rows];
                    w.multiply_with(isa, &x, n, &mut y).unwrap();
                    if let Some(first) = first.as_ref().filter(|_| n <= 8) {
                        let same = first.iter().zip(&y).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{format:?} {} n {n}: other bits", isa.name());
                        continue;
                    }
                    for (t, x) in x.chunks(columns).enumerate() {
                        for r in 0..rows {
                            let row = &weights[r * columns..(r + 1) * columns];
                            let (mut sum, mut allowed) = (0.0, 1e-6);
                            for (w, x) in row.chunks(32).zip(x.chunks(32)) {
                                let largest = x.iter().fold(0.0, |l: f32, x| l.max(x.abs()));
                                for (w, x) in w.iter().zip(x) {
                                    sum += f64::from(*w) * f64::from(*x);
                                    // A code's magnitude may be far above its weight's: 2⁻¹ bounds
                                    // scale times code here.
                                    allowed += f64::from(w.abs() * largest) / 65278.0
                                        + f64::from(x.abs()) * 8e-5;
                                }
                            }
                            let got = f64::from(y[t * rows + r]);
                            assert!(
                                (got - sum).abs() <= allowed,
                                "{format:?} {n} {t} {r}: {got}, not {sum}±{allowed}"
                            );
                        }
                    }
                    first = Some(y);
                }
            }
        }
    }
}

#[test]
fn the_gradient_is_the_transposed_product() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for format in FORMATS {
        for (rows, columns) in shapes(format) {
            let w = random(&mut rng, format, rows, columns);
            let weights = w.expand();
            for n in [1, 3, 70] {
                let g = values(&mut rng, n * rows);
                let mut out = vec![f32::NAN; n * columns];
                w.multiply_transposed(&g, n, &mut out).unwrap();
                for (g, out) in g.chunks(rows).zip(out.chunks(columns)) {
                    for (c, out) in out.iter().enumerate() {
                        let terms = g
                            .iter()
                            .enumerate()
                            .map(|(r, g)| f64::from(*g) * f64::from(weights[r * columns + c]));
                        let (sum, size) =
                            terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                        assert!(
                            (f64::from(*out) - sum).abs() <= 1e-5 * size,
                            "{format:?} {c}: {out}, not {sum}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn parts_and_orders_are_rows() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let w = random(&mut rng, BlockFormat::Q4K, 6, 512);
    let (all, part) = (w.expand(), w.part(2..5).unwrap());
    assert_eq!((part.rows(), part.bytes()), (3, 3 * 288));
    assert_eq!(part.expand(), all[2 * 512..5 * 512]);
    assert_eq!(part.part(1..2).unwrap().expand(), all[3 * 512..4 * 512]);
    let turned = part.reordered(&[2, 0, 1]).unwrap().expand();
    assert_eq!(turned, [&all[4 * 512..5 * 512], &all[2 * 512..4 * 512]].concat());
    assert!(w.part(5..7).is_err() && w.reordered(&[6]).is_err());
}

#[test]
fn what_does_not_fit_or_is_not_finite_is_told() {
    assert!(BlockMatrix::new(BlockFormat::Q4K, 1, 256, vec![0; 143]).is_err());
    assert!(BlockMatrix::new(BlockFormat::Q4K, 1, 128, vec![0; 72]).is_err());
    assert!(BlockMatrix::new(BlockFormat::Q8_0, usize::MAX, 32, Vec::new()).is_err());
    let mut bytes = vec![0; 420];
    assert!(!BlockMatrix::new(BlockFormat::Q6K, 2, 256, bytes.clone()).unwrap().has_nan());
    bytes[210 + 209] = 0x7e;
    let w = BlockMatrix::new(BlockFormat::Q6K, 2, 256, bytes).unwrap();
    assert!(w.has_nan() && !w.part(0..1).unwrap().has_nan());
    assert!(w.multiply(&[0.0; 256], 1, &mut [0.0; 3]).is_err());
}

#[test]
fn an_activation_that_is_not_finite_shows() {
    let w = random(&mut ChaCha8Rng::seed_from_u64(4), BlockFormat::Q5K, 3, 512);
    let mut x = vec![1.0; 512];
    x[300] = f32::INFINITY;
    for isa in Isa::available() {
        let mut y = [0.0; 3];
        w.multiply_with(isa, &x, 1, &mut y).unwrap();
        assert!(y.iter().all(|y| y.is_nan()), "{}", isa.name());
    }
}

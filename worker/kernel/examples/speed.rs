//! Speed of every kernel family here, beside the `gemm` crate's f32 product of the expanded weights
//! in the same run.
//!
//! `cargo run --release -p uspx-kernel --example speed [rows columns n …]`; threads by
//! `RAYON_NUM_THREADS`. Prints GFLOP/s (2·n·rows·columns per second, median of alternating rounds)
//! and the ratio to `gemm`.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::time::Instant;

use gemm::{Parallelism, gemm};
use rand::{Rng, SeedableRng};
use uspx_kernel::{Isa, Matrix};

const ROUNDS: usize = 7;

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let (shapes, ns) = match numbers.as_slice() {
        [rows, columns, ns @ ..] if !ns.is_empty() => (vec![(*rows, *columns)], ns.to_vec()),
        _ => (
            vec![(2048, 1024), (1024, 1024), (5760, 2880), (2880, 2880)],
            vec![1, 8, 32, 128, 256, 1024],
        ),
    };
    accuracy();
    println!("{} threads; GFLOP/s (ratio to gemm f32)", rayon::current_num_threads());
    for (rows, columns) in shapes {
        for &n in &ns {
            measure(rows, columns, n);
        }
    }
}

fn measure(rows: usize, columns: usize, n: usize) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let x: Vec<f32> = (0..n * columns).map(|_| rng.random_range(-1.0..1.0)).collect();
    let g: Vec<f32> = (0..n * rows).map(|_| rng.random_range(-1.0..1.0)).collect();
    let blocks = (0..rows * columns / 2).map(|_| rng.random()).collect();
    let scales = (0..rows * columns / 32).map(|_| rng.random_range(118..124)).collect();
    let mxfp4 = Matrix::mxfp4(rows, columns, blocks, scales).unwrap();
    let values = mxfp4.expand();
    let bytes = values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
    let bf16 = Matrix::bf16(rows, columns, bytes).unwrap();
    let mut y = vec![0.0; n * rows];
    let mut out = vec![0.0; n * columns];
    // Enough repetitions that a round takes some milliseconds.
    let flop = 2.0 * (n * rows * columns) as f64;
    let repeat = (4e9 / flop).clamp(1.0, 1000.0) as usize;
    let mut seconds: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..ROUNDS {
        let mut slot = 0;
        let mut time = |name: String, repeat: usize, f: &mut dyn FnMut()| {
            let start = Instant::now();
            (0..repeat).for_each(|_| f());
            if seconds.len() <= slot {
                seconds.push((name, Vec::new()));
            }
            seconds[slot].1.push(start.elapsed().as_secs_f64() / repeat as f64);
            slot += 1;
        };
        time("gemm f32".into(), repeat.div_ceil(4), &mut || {
            dense(n, rows, columns, &x, &values, &mut y)
        });
        for isa in Isa::available() {
            let slow = if isa == Isa::Portable { repeat.div_ceil(16) } else { repeat };
            let name = isa.name();
            time(format!("{name} mxfp4"), slow, &mut || {
                mxfp4.multiply_with(isa, &x, n, &mut y).unwrap()
            });
            time(format!("{name} bf16"), slow, &mut || {
                bf16.multiply_with(isa, &x, n, &mut y).unwrap()
            });
            if isa == Isa::Amx || isa == Isa::Portable {
                let mut back = || mxfp4.multiply_transposed_with(isa, &g, n, &mut out).unwrap();
                time(format!("{name} mxfp4 backward"), slow, &mut back);
                let mut back = || bf16.multiply_transposed_with(isa, &g, n, &mut out).unwrap();
                time(format!("{name} bf16 backward"), slow, &mut back);
            }
        }
    }
    let rates: Vec<(String, f64)> = seconds
        .into_iter()
        .map(|(name, mut times)| {
            times.sort_by(f64::total_cmp);
            (name, flop / times[times.len() / 2] / 1e9)
        })
        .collect();
    println!("[{rows}, {columns}] n = {n}");
    for (name, rate) in &rates {
        println!("  {name:24} {rate:8.1} ({:.2})", rate / rates[0].1);
    }
}

/// Errors against f64, as root of the mean square relative to that of the results: normal-like
/// activations with one value in 500 a hundred times larger, as transformers have them.
fn accuracy() {
    let (rows, columns, n) = (512, 2880, 16);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let mut normal = || (0..12).map(|_| rng.random_range(-0.5_f32..0.5)).sum::<f32>();
    let mut x: Vec<f32> = (0..n * columns).map(|_| normal()).collect();
    x.iter_mut().step_by(500).for_each(|x| *x *= 100.0);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(12);
    let blocks = (0..rows * columns / 2).map(|_| rng.random()).collect();
    let scales = (0..rows * columns / 32).map(|_| rng.random_range(118..124)).collect();
    let w = Matrix::mxfp4(rows, columns, blocks, scales).unwrap();
    let values = w.expand();
    let exact: Vec<f64> = x
        .chunks(columns)
        .flat_map(|x| {
            let dot = |w: &[f32]| {
                x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>()
            };
            values.chunks(columns).map(dot).collect::<Vec<_>>()
        })
        .collect();
    let mut y = vec![0.0; n * rows];
    let report = |name: &str, y: &[f32]| {
        let error: f64 = y.iter().zip(&exact).map(|(y, e)| (f64::from(*y) - e).powi(2)).sum();
        let size: f64 = exact.iter().map(|e| e * e).sum();
        println!("error of {name:10} {:.1e}", (error / size).sqrt());
    };
    dense(n, rows, columns, &x, &values, &mut y);
    report("gemm f32", &y);
    for isa in Isa::available() {
        w.multiply_with(isa, &x, n, &mut y).unwrap();
        report(isa.name(), &y);
    }
}

/// y = x·Wᵀ by the `gemm` crate, on rayon's threads.
fn dense(n: usize, rows: usize, columns: usize, x: &[f32], w: &[f32], y: &mut [f32]) {
    let threads = rayon::current_num_threads();
    let parallelism = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    let s = |stride: usize| stride as isize;
    // SAFETY: the slices have the shapes' lengths.
    unsafe {
        gemm(
            n,
            rows,
            columns,
            y.as_mut_ptr(),
            1,
            s(rows),
            false,
            x.as_ptr(),
            1,
            s(columns),
            w.as_ptr(),
            s(columns),
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

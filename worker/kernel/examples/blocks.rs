//! How fast GGUF's blocks are multiplied, by format, kernel family and number of rows: `cargo run
//! --release -p uspx-kernel --example blocks`. Give RAYON_NUM_THREADS.
#![allow(clippy::unwrap_used)]

use std::time::Instant;
use uspx_kernel::{BlockFormat, BlockMatrix, Isa};

const ROWS: usize = 2816;
const COLUMNS: usize = 1024;

fn main() {
    for format in
        [BlockFormat::Q4K, BlockFormat::Q5K, BlockFormat::Q6K, BlockFormat::Q8_0, BlockFormat::Q4_0]
    {
        // More matrices than the caches hold are not needed: what counts is the arithmetic.
        let bytes = vec![0x21; ROWS * COLUMNS / format.block() * format.block_bytes()];
        let w = BlockMatrix::new(format, ROWS, COLUMNS, bytes).unwrap();
        for isa in Isa::available() {
            for n in [1, 2, 4, 8, 12, 13, 32, 64, 256] {
                let (x, mut y) = (vec![0.5; n * COLUMNS], vec![0.0; n * ROWS]);
                let mut best = f64::INFINITY;
                for _ in 0..20 {
                    let start = Instant::now();
                    w.multiply_with(isa, &x, n, &mut y).unwrap();
                    best = best.min(start.elapsed().as_secs_f64());
                }
                let (flops, bytes) =
                    ((2 * n * ROWS * COLUMNS) as f64 / best / 1e9, w.bytes() as f64 / best / 1e9);
                println!(
                    "{format:?} {:8} n {n:3}: {:7.1} µs {flops:6.1} GFLOP/s {bytes:5.1} GB/s",
                    isa.name(),
                    best * 1e6
                );
            }
        }
    }
}

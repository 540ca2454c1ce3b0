//! temporary
use uspx_kernel::{Isa, Matrix};
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let (rows, columns, n, mode) = (a[0], a[1], a[2], a[3]);
    let m = if mode & 1 == 0 {
        Matrix::mxfp4(rows, columns, vec![0x53; rows * columns / 2], vec![120; rows * columns / 32]).unwrap()
    } else {
        Matrix::bf16(rows, columns, vec![0x3c; rows * columns * 2]).unwrap()
    };
    let x = vec![0.37_f32; n * columns.max(rows)];
    let mut y = vec![0.0; n * columns.max(rows)];
    let isa = match mode / 10 {
        0 => Isa::Amx,
        1 => Isa::Avx512,
        2 => Isa::Avx2,
        _ => Isa::Portable,
    };
    let reps = (1e11 / (2 * n * rows * columns) as f64) as usize;
    let mut best = f64::MAX;
    for _ in 0..8 {
        let t = std::time::Instant::now();
        for _ in 0..reps.div_ceil(8) {
            if mode & 2 == 0 {
                m.multiply_with(isa, &x[..n * columns], n, &mut y[..n * rows]).unwrap()
            } else {
                m.multiply_transposed_with(isa, &x[..n * rows], n, &mut y[..n * columns]).unwrap()
            }
        }
        best = best.min(t.elapsed().as_secs_f64() / reps.div_ceil(8) as f64);
    }
    println!("{rows}x{columns} n {n} mode {mode}: {:.0} GFLOP/s", (2 * n * rows * columns) as f64 / best / 1e9);
}

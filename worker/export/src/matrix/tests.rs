//! The factor in place against the naive one of a naive inverse, and what is refused.

use super::*;
use rand::{Rng, SeedableRng};

/// Xᵀ·X of random rows, with `ridge` on the diagonal.
fn gram(rows: usize, side: usize, ridge: f64, change: impl Fn(&mut [f64])) -> SquareMatrix {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut sum = SquareMatrix::zeros(side);
    for _ in 0..rows {
        let mut row: Vec<f64> = (0..side).map(|_| random.random_range(-1.0..1.0)).collect();
        change(&mut row);
        for r in 0..side {
            for c in 0..side {
                sum.data[r * side + c] += row[r] * row[c];
            }
        }
    }
    (0..side).for_each(|i| sum.data[i * side + i] += ridge);
    sum
}

/// H⁻¹ by Gauss and Jordan with pivots, textbook.
fn inverse(h: &SquareMatrix) -> Vec<Vec<f64>> {
    let n = h.side;
    let wide = |r: usize| {
        let unit = (0..n).map(move |c| f64::from(u8::from(c == r)));
        h.row(r).iter().copied().chain(unit).collect::<Vec<f64>>()
    };
    let mut rows: Vec<Vec<f64>> = (0..n).map(wide).collect();
    for j in 0..n {
        let best = (j..n).max_by(|a, b| rows[*a][j].abs().total_cmp(&rows[*b][j].abs())).unwrap();
        rows.swap(j, best);
        let pivot = rows[j][j];
        rows[j].iter_mut().for_each(|v| *v /= pivot);
        let own = rows[j].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(r, _)| *r != j) {
            let factor = row[j];
            row.iter_mut().zip(&own).for_each(|(v, o)| *v -= factor * o);
        }
    }
    rows.into_iter().map(|mut row| row.split_off(n)).collect()
}

/// The upper U of A = Uᵀ·U, textbook.
fn cholesky(a: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = a.len();
    let mut u = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in i..n {
            let sum: f64 = (0..i).map(|k| u[k][i] * u[k][j]).sum();
            u[i][j] = if i == j { (a[i][i] - sum).sqrt() } else { (a[i][j] - sum) / u[i][i] };
        }
    }
    u
}

/// GPTQ's published factor is the upper U with H⁻¹ = Uᵀ·U; ours is its inverse.
#[test]
fn it_is_the_inverse_of_the_naive_factor_of_the_naive_inverse() {
    for side in [1, 2, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 37] {
        let h = gram(side + 60, side, 1.0, |_| {});
        let u = cholesky(&inverse(&h));
        let mut factored = h.clone();
        assert!(factored.factor(&[]).unwrap());
        for r in 0..side {
            assert_eq!(factored.row(r)[..r], h.row(r)[..r], "what lies below is H's");
            for c in r..side {
                let columns = factored.row(r)[r..=c].iter().zip(&u[r..]);
                let unit: f64 = columns.map(|(x, row)| x * row[c]).sum();
                let want = f64::from(u8::from(r == c));
                assert!((unit - want).abs() < 1e-9, "{side}: [{r}, {c}] is {unit}");
            }
        }
    }
}

/// ‖R·Rᵀ − H‖ / ‖H‖, the largest of all values.
fn residual(factored: &SquareMatrix, h: &SquareMatrix) -> f64 {
    let (mut worst, mut largest) = (0f64, 0f64);
    for r in 0..h.side {
        for c in r..h.side {
            let product: f64 = (c..h.side).map(|k| factored.row(r)[k] * factored.row(c)[k]).sum();
            worst = worst.max((product - h.row(r)[c]).abs());
            largest = largest.max(h.row(r)[c].abs());
        }
    }
    worst / largest
}

/// Fewer rows than inputs, and two inputs that are nearly one: with damping, as GPTQ asks for it.
#[test]
fn an_ill_conditioned_one_is_factored_with_damping_to_the_last_digits() {
    let side = BLOCK + 30;
    let h = gram(40, side, 0.0, |row| row[1] = row[0] * (1.0 + 1e-7 * row[2]));
    let mut plain = h.clone();
    assert!(!plain.factor(&[]).unwrap(), "of rank 40");
    assert_eq!(plain, h, "as before");
    for damping in [1e-2, 1e-6] {
        let added = vec![damping; side];
        let mut factored = h.clone();
        assert!(factored.factor(&added).unwrap());
        let mut damped = h.clone();
        (0..side).for_each(|i| damped.data[i * side + i] += damping);
        let off = residual(&factored, &damped);
        assert!(off < 1e-13, "{damping}: {off}");
    }
}

#[test]
fn refuses_the_indefinite_and_leaves_it_as_it_was() {
    let side = 2 * BLOCK + 3;
    let mut h = gram(side + 9, side, 1.0, |_| {});
    // Found late: blocks are factored from the last to the first.
    h.data[0] = -1.0;
    let before = h.clone();
    assert!(!h.factor(&vec![0.5; side]).unwrap());
    assert_eq!(h, before);
    assert!(h.factor(&vec![1e6; side]).unwrap());
    let mut nan = SquareMatrix::new(2, vec![f64::NAN; 4]).unwrap();
    assert!(!nan.factor(&[]).unwrap());
    assert!(SquareMatrix::new(2, vec![1.0; 3]).is_err());
}

/// Rounding H to f32 alone, before any arithmetic, makes a nearly singular one indefinite; f64
/// factors it.
#[test]
fn f32_would_not_do() {
    let mut h = gram(400, 64, 0.0, |row| row[1] = row[0] * (1.0 + 1e-5 * row[2]));
    let rounded = h.data.iter().map(|v| f64::from(*v as f32)).collect();
    let mut rounded = SquareMatrix::new(64, rounded).unwrap();
    assert!(h.factor(&[]).unwrap());
    assert!(!rounded.factor(&[]).unwrap());
}

#[test]
fn rows_and_columns_are_reordered_and_mirrored() {
    let side = BLOCK + 5;
    let h = gram(20, side, 0.0, |_| {});
    let mut upper = h.clone();
    for r in 0..side {
        upper.data[r * side..r * side + r].fill(f64::NAN);
    }
    upper.mirror();
    assert_eq!(upper, h);
    // Cycles of several lengths, and places that stay.
    let mut order: Vec<usize> = (0..side).collect();
    order.swap(3, 90);
    order[10..60].rotate_left(7);
    let mut moved = h.clone();
    moved.reorder(&order);
    for r in 0..side {
        for c in 0..side {
            assert_eq!(moved.row(r)[c], h.row(order[r])[order[c]]);
        }
    }
}

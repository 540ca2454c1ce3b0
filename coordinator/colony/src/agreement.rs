//! How far two scores of the same units agree: Spearman's rank correlation, and what share of the
//! best units they have in common.

use std::collections::BTreeSet;

/// Spearman's ρ: Pearson's correlation of the ranks, ties at their mean rank (Spearman 1904). Not a
/// number where a score is the same for all units.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let product = |x: &[f64], y: &[f64]| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum()
    };
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

/// The rank of each value, from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| a.1 == b.1) {
        let rank = before as f64 + (equal.len() as f64 + 1.0) / 2.0;
        for (at, _) in equal {
            ranks.get_mut(*at).into_iter().for_each(|place| *place = rank);
        }
        before += equal.len();
    }
    ranks
}

/// The share of the `k` best units of one score that are among the `k` best of the other; of equal
/// ones the first. Not a number where `k` is 0.
pub fn overlap(a: &[f64], b: &[f64], k: usize) -> f64 {
    let (a, b) = (best(a, k), best(b, k));
    a.intersection(&b).count() as f64 / k as f64
}

fn best(values: &[f64], k: usize) -> BTreeSet<usize> {
    let mut order: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    order.into_iter().take(k).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `scipy.stats.spearmanr(a, b).statistic` of SciPy 1.17, ties among them.
    #[test]
    fn rank_correlations_are_those_of_scipy() {
        let a = [0.3, -1.2, 4.5, 4.5, 2.0, 0.0, 7.1, -3.3];
        let b = [1.0, -0.5, 3.0, 2.0, 2.0, 2.0, 9.0, -8.0];
        assert!((spearman(&a, &b) - 0.908_129_283_296_559_6).abs() < 1e-12, "{}", spearman(&a, &b));
        let down: Vec<f64> = a.iter().map(|v| -v).collect();
        assert!((spearman(&a, &down) + 1.0).abs() < 1e-12);
        assert!(spearman(&a, &[1.0; 8]).is_nan());
    }

    #[test]
    fn ties_share_their_mean_rank() {
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 0.0, 5.0]), [4.0, 2.0, 4.0, 1.0, 4.0]);
    }

    #[test]
    fn overlaps_are_counted_among_the_best() {
        let (a, b) = ([9.0, 8.0, 1.0, 2.0], [1.0, 8.0, 9.0, 2.0]);
        assert_eq!((overlap(&a, &b, 1), overlap(&a, &b, 2), overlap(&a, &b, 4)), (0.0, 0.5, 1.0));
        assert_eq!(overlap(&[1.0; 4], &[4.0, 3.0, 0.0, 0.0], 2), 1.0, "of equals the first");
    }
}

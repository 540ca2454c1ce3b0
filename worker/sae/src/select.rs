//! Which pre-activations become a row's features.

use crate::codes::Codes;
use crate::number::Number;
use rayon::prelude::*;
use std::cmp::Ordering;

/// How features are chosen. All but positive pre-activations count as zero.
#[derive(Debug, Clone, PartialEq)]
pub enum Select<T> {
    /// Every positive one (ReLU).
    Positive,
    /// The `k` largest of each row.
    TopK(usize),
    /// The largest of all rows together, `k` a row on average. What a row's features are depends on
    /// the rows beside it: for training only.
    BatchTopK(usize),
    /// Those above their feature's threshold (JumpReLU), `[features]`.
    Above(Vec<T>),
}

impl<T: Number> Select<T> {
    /// The codes of pre-activations `[n, features]`.
    pub fn codes(&self, pre: &[T], features: usize) -> Codes<T> {
        let rows = pre.par_chunks_exact(features.max(1));
        Codes::of_rows(match self {
            Self::Positive => rows.map(positive).collect(),
            Self::TopK(k) => rows.map(|row| largest(row, *k, T::zero(), |_| true)).collect(),
            Self::BatchTopK(k) => batch(rows.map(positive).collect(), *k),
            Self::Above(thresholds) => rows.map(|row| above(row, thresholds)).collect(),
        })
    }
}

fn positive<T: Number>(row: &[T]) -> Vec<(u32, T)> {
    (0u32..).zip(row.iter().copied()).filter(|(_, value)| *value > T::zero()).collect()
}

fn above<T: Number>(row: &[T], thresholds: &[T]) -> Vec<(u32, T)> {
    let each = (0u32..).zip(row.iter().copied()).zip(thresholds);
    each.filter(|((_, x), bound)| *x > **bound && *x > T::zero()).map(|(entry, _)| entry).collect()
}

/// The `k` largest values above `floor` among the features that `may` be chosen; of equal ones the
/// first.
pub(crate) fn largest<T: Number>(
    row: &[T],
    k: usize,
    floor: T,
    may: impl Fn(usize) -> bool,
) -> Vec<(u32, T)> {
    // Sorted, the largest first. Few values get past the first comparison.
    let mut kept: Vec<(u32, T)> = Vec::with_capacity(k + 1);
    let mut bound = floor;
    for (at, &value) in row.iter().enumerate() {
        if value > bound && may(at) {
            let place = kept.partition_point(|(_, other)| *other >= value);
            kept.insert(place, (at as u32, value));
            kept.truncate(k);
            if kept.len() == k {
                bound = kept.last().map_or(floor, |(_, least)| *least);
            }
        }
    }
    kept
}

/// Of all rows' entries the largest, `k` a row on average.
fn batch<T: Number>(mut rows: Vec<Vec<(u32, T)>>, k: usize) -> Vec<Vec<(u32, T)>> {
    let wanted = k * rows.len();
    let mut all: Vec<(T, usize, u32)> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        all.extend(row.iter().map(|(feature, value)| (*value, at, *feature)));
    }
    if all.len() <= wanted {
        return rows;
    }
    // Of equal values the first.
    let order = |a: &(T, usize, u32), b: &(T, usize, u32)| {
        let by_value = b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal);
        by_value.then((a.1, a.2).cmp(&(b.1, b.2)))
    };
    all.select_nth_unstable_by(wanted, order);
    all.truncate(wanted);
    rows.iter_mut().for_each(Vec::clear);
    for (value, at, feature) in all {
        rows.get_mut(at).into_iter().for_each(|row| row.push((feature, value)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRE: [f64; 12] = [0.5, 3.0, -1.0, 2.0, 0.0, 9.0, 8.0, 7.0, 2.0, 2.0, 2.0, -5.0];

    fn rows(select: &Select<f64>) -> Vec<Vec<(u32, f64)>> {
        let codes = select.codes(&PRE, 4);
        (0..codes.rows()).map(|row| codes.row(row).collect()).collect()
    }

    #[test]
    fn each_way_of_choosing_takes_what_it_should() {
        let top = rows(&Select::TopK(2));
        assert_eq!(
            top,
            [vec![(1, 3.0), (3, 2.0)], vec![(1, 9.0), (2, 8.0)], vec![(0, 2.0), (1, 2.0)]]
        );
        let batch = rows(&Select::BatchTopK(2));
        assert_eq!(
            batch,
            [vec![(1, 3.0), (3, 2.0)], vec![(1, 9.0), (2, 8.0), (3, 7.0)], vec![(0, 2.0)]]
        );
        let above = rows(&Select::Above(vec![1.0, 2.5, -9.0, 7.0]));
        assert_eq!(above, [vec![(1, 3.0)], vec![(1, 9.0), (2, 8.0)], vec![(0, 2.0), (2, 2.0)]]);
        assert_eq!(rows(&Select::Positive).iter().map(Vec::len).sum::<usize>(), 9);
        assert_eq!(rows(&Select::TopK(9)), rows(&Select::Positive));
    }

    #[test]
    fn the_largest_are_those_of_a_full_sort() {
        let row: Vec<f64> = (0..500).map(|i| f64::from(i * 7919 % 251) - 100.0).collect();
        let mut sorted: Vec<(u32, f64)> = (0u32..).zip(row.iter().copied()).collect();
        sorted.retain(|(at, value)| *value > 0.0 && at % 3 > 0);
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        sorted.truncate(40);
        assert_eq!(largest(&row, 40, 0.0, |at| at % 3 > 0), sorted);
    }
}

//! Two levels that stand for many magnitudes with the least squared error: 2-means in one dimension, exact,
//! because the groups of the best solution are neighbours in order.

/// The two levels, and where the large one begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Levels {
    pub small: f32,
    pub large: f32,
    /// The least magnitude that the large level stands for.
    pub from: f32,
}

/// The best levels for finite magnitudes above 0. Both are the same where all magnitudes are.
pub(super) fn fit(mut magnitudes: Vec<f32>) -> Levels {
    magnitudes.sort_unstable_by(f32::total_cmp);
    let least = magnitudes.first().copied().unwrap_or(0.0);
    // Measured from the least, so that magnitudes that differ little are still told apart.
    let above = |m: f32| f64::from(m) - f64::from(least);
    let (count, total) = (magnitudes.len(), magnitudes.iter().map(|&m| above(m)).sum::<f64>());
    let mean = |sum: f64, of: usize| (f64::from(least) + sum / of as f64) as f32;
    let mut best = (0.0, Levels { small: least, large: least, from: f32::INFINITY });
    let mut sum = 0.0;
    for (below, pair) in (1..).zip(magnitudes.windows(2)) {
        let &[last, next] = pair else { continue };
        sum += above(last);
        if last == next {
            continue; // Equal magnitudes have the same level.
        }
        // The squared error is a constant less this.
        let (rest, over) = (total - sum, count - below);
        let gain = sum * sum / below as f64 + rest * rest / over as f64;
        if gain > best.0 {
            let levels = Levels { small: mean(sum, below), large: mean(rest, over), from: next };
            best = (gain, levels);
        }
    }
    best.1
}

//! How far losses that were tried on the same prompts are from what they would be on others.

/// Variances of rises, in (nats per token)², each of one that is the sum over prompts of a row of
/// `rises` (nats) by the sum of `tokens`, beside the mean of all rows: what they all share on a prompt
/// says nothing of which of them is the better. That of a ratio of sums over prompts (Cochran 1977,
/// *Sampling Techniques*, eq. 2.45).
pub(super) fn variances(rises: &[&[f64]], tokens: &[f64]) -> Vec<f64> {
    let (n, rows) = (tokens.len() as f64, rises.len().max(1) as f64);
    let all: f64 = tokens.iter().sum::<f64>().max(1.0);
    let mut shared = vec![0.0; tokens.len()];
    for row in rises {
        shared.iter_mut().zip(*row).for_each(|(shared, nats)| *shared += nats / rows);
    }
    let variance = |row: &&[f64]| {
        let beside: Vec<f64> =
            row.iter().zip(&shared).map(|(nats, shared)| nats - shared).collect();
        let mean = beside.iter().sum::<f64>() / all;
        let left = beside.iter().zip(tokens).map(|(nats, tokens)| nats - mean * tokens);
        let squares: f64 = left.map(|left| left * left).sum();
        squares * n / (n - 1.0).max(1.0) / (all * all)
    };
    rises.iter().map(variance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dice;

    /// The prompts drawn anew with replacement, many times over.
    #[test]
    fn they_are_those_of_a_bootstrap_over_prompts() {
        let mut dice = Dice::new(3, "noise", 0);
        let tokens: Vec<f64> = (0..200).map(|_| 5.0 + (dice.unit() * 30.0).floor()).collect();
        let hard: Vec<f64> = tokens.iter().map(|t| t * dice.normal()).collect();
        let mut row = |spread: f64| -> Vec<f64> {
            let each = hard.iter().zip(&tokens);
            each.map(|(hard, t)| hard + t * (0.1 + spread * dice.normal())).collect()
        };
        let rows = [row(0.0), row(0.2), row(1.0)];
        let rises: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let mut draws: Vec<Vec<f64>> = vec![Vec::new(); rows.len()];
        for _ in 0..4000 {
            let drawn: Vec<usize> =
                tokens.iter().map(|_| (dice.unit() * tokens.len() as f64) as usize).collect();
            let all: f64 = drawn.iter().map(|p| tokens[*p]).sum();
            let rise = |row: &[f64]| drawn.iter().map(|p| row[*p]).sum::<f64>() / all;
            let mean = rises.iter().map(|row| rise(row)).sum::<f64>() / rises.len() as f64;
            draws.iter_mut().zip(&rises).for_each(|(d, row)| d.push(rise(row) - mean));
        }
        for (got, drawn) in variances(&rises, &tokens).iter().zip(draws) {
            let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
            let square = |x: &f64| (x - mean) * (x - mean);
            let want = drawn.iter().map(square).sum::<f64>() / (drawn.len() - 1) as f64;
            assert!((got / want - 1.0).abs() < 0.1, "{got} against {want}");
        }
    }

    #[test]
    fn one_row_has_nothing_beside_it() {
        assert_eq!(variances(&[&[3.0, 1.0]], &[2.0, 2.0]), [0.0]);
        assert!(variances(&[], &[2.0]).is_empty());
    }
}

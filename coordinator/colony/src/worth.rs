//! What another look at a unit is worth: by how much it is expected to lessen the loss of deciding wrongly whether the
//! unit stays (the knowledge gradient for selection; Frazier, Powell & Dayanik 2008, *SIAM J. Control Optim.* 47).
//!
//! A unit's effect is taken to be normal about its score. Deciding by the score costs, beside knowing the effect,
//! s·ψ(|m − θ| / s) with ψ(z) = φ(z) − z(1 − Φ(z)): m the score, s its error, θ the cut. More prompts make s smaller.

use crate::combine::Score;

/// ψ at 0, 1/8, 2/8, … 4.
const PSI: [f64; 33] = [
    3.989423e-01,
    3.395550e-01,
    2.863447e-01,
    2.391688e-01,
    1.977966e-01,
    1.619200e-01,
    1.311669e-01,
    1.051164e-01,
    8.331547e-02,
    6.529531e-02,
    5.058687e-02,
    3.873440e-02,
    2.930679e-02,
    2.190619e-02,
    1.617379e-02,
    1.179310e-02,
    8.490703e-03,
    6.035209e-03,
    4.234588e-03,
    2.932522e-03,
    2.004137e-03,
    1.351505e-03,
    8.992136e-04,
    5.902250e-04,
    3.821543e-04,
    2.440540e-04,
    1.537167e-04,
    9.547909e-05,
    5.848092e-05,
    3.531889e-05,
    2.103086e-05,
    1.234628e-05,
    7.145258e-06,
];
/// Values of the table from 0 to 1.
const STEPS: f64 = 8.0;

/// ψ, straight between the table's values; behind them it falls as fast as the square rises.
fn psi(z: f64) -> f64 {
    let at = z * STEPS;
    let below = at as usize;
    match (PSI.get(below), PSI.get(below + 1)) {
        (Some(a), Some(b)) => a + (b - a) * (at - below as f64),
        _ => PSI.last().copied().unwrap_or(0.0) * 16.0 / (z * z),
    }
}

/// What deciding by a score that is so far from the cut is expected to cost, in the score's unit.
fn regret(away: f64, error: f64) -> f64 {
    if error > 0.0 { error * psi(away / error) } else { 0.0 }
}

/// What it is worth that the error of a score falls from `before` to `after`.
pub fn worth(score: &Score, cut: f64, (before, after): (f64, f64)) -> f64 {
    let away = (score.mean - cut).abs();
    regret(away, before) - regret(away, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(mean: f64, error: f64) -> Score {
        Score { mean, error, effective: 8.0 }
    }

    /// Against ∫ max(0, x) over the normal's tail, by the midpoint rule; between the table's values it is a little more.
    #[test]
    fn the_regret_is_the_expected_loss_of_a_wrong_decision() {
        for z in [0.0, 0.3, 1.0, 1.7, 2.5, 3.9] {
            let (mut sum, step) = (0.0, 1e-3);
            for i in 0..8000 {
                let x = step * (f64::from(i) + 0.5);
                let at = x + z;
                sum += x * (-at * at / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * step;
            }
            let got = regret(2.0 * z, 2.0);
            assert!(got / 2.0 > 0.999 * sum && got / 2.0 < 1.04 * sum, "{z}: {got} {sum}");
        }
    }

    #[test]
    fn it_pays_to_look_where_it_is_open_and_where_little_is_known() {
        let of = |mean, error, share| worth(&score(mean, error), 1.0, (error, error * share));
        assert!(of(1.0, 0.5, 0.7) > of(2.0, 0.5, 0.7));
        assert!(of(1.2, 0.5, 0.7) > of(1.2, 0.1, 0.7));
        assert!(of(1.2, 0.5, 0.7) > of(1.2, 0.5, 0.95));
        assert_eq!(of(1.2, 0.0, 0.7), 0.0);
        assert!(of(9.0, 0.5, 0.7) >= 0.0 && of(9.0, 0.5, 0.7) < 1e-6);
    }
}

//! The learning rate over the steps of a training.

/// Share of the steps in which the rate rises.
const WARM_UP: f64 = 0.02;
/// Share of the steps, the last ones, in which it falls.
const DECAY: f64 = 0.3;

/// The rate at `step` (from 0) of `steps`: a linear rise, its peak, a linear fall to almost nothing.
pub fn rate(peak: f64, step: u64, steps: u64) -> f64 {
    let (step, steps) = (step as f64, steps.max(1) as f64);
    let rise = (step + 1.0) / (steps * WARM_UP).max(1.0);
    let fall = (steps - step) / (steps * DECAY).max(1.0);
    peak * rise.min(fall).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_stays_and_falls() {
        let rates: Vec<f64> = (0..1000).map(|s| rate(2.0, s, 1000)).collect();
        assert!(rates[..20].windows(2).all(|w| w[0] < w[1]));
        assert!(rates[20..700].iter().all(|r| *r == 2.0));
        assert!(rates[700..].windows(2).all(|w| w[0] > w[1]));
        assert!(rates[999] > 0.0 && rates[999] < 0.01);
        assert_eq!(rate(2.0, 0, 1), 2.0);
    }
}

//! The normal distribution's function, by arithmetic alone: it is the same on every machine.

/// φ(0) = 1 / √(2π).
const HEIGHT: f64 = 0.398_942_280_401_432_7;
/// Beyond so many standard deviations lie 3 of ten million; there the function counts as 0 or 1.
const FAR: f64 = 5.0;
/// Enough terms for the last one to be nothing at [`FAR`].
const TERMS: u32 = 64;

/// Φ(z): the share of a standard normal that lies below `z`, to 1e-9 within [`FAR`]. By the series of Φ(z) − ½ =
/// φ(0) Σ (−1)ᵏ z²ᵏ⁺¹ / (2ᵏ k! (2k + 1)) (Abramowitz & Stegun 1964, 26.2.10).
pub(crate) fn below(z: f64) -> f64 {
    if z >= FAR {
        return 1.0;
    }
    if z <= -FAR || z.is_nan() {
        return 0.0;
    }
    let (mut power, mut sum) = (z, z);
    for k in 1..TERMS {
        power *= -z * z / (2.0 * f64::from(k));
        sum += power / f64::from(2 * k + 1);
    }
    0.5 + HEIGHT * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the density, summed over a fine grid.
    #[test]
    fn it_is_the_area_under_the_density() {
        let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let step = 1e-4;
        let mut area = 0.0;
        for i in 0..160_000 {
            let x = -8.0 + step * (f64::from(i) + 0.5);
            area += density(x) * step;
            let z = x + step / 2.0;
            if z.abs() < FAR {
                assert!((below(z) - area).abs() < 1e-8, "{z}: {} {area}", below(z));
            }
        }
        assert_eq!((below(f64::INFINITY), below(f64::NEG_INFINITY)), (1.0, 0.0));
    }
}

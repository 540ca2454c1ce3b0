//! Llama 3's stretched rotation: the divisors of its frequencies, and the parameters behind
//! divisors.

use super::pairs::exact;
use crate::{ExportError, Result, hf};
use serde_json::Value;
use std::f64::consts::PI;
use uspx_model::config::{Rope, RopeScaling};

/// The divisors, `[head_dim / 2]`, or `None` for a rotation that is not stretched.
pub(super) fn divisors(rope: &Rope, head_dim: usize) -> Result<Option<Vec<f32>>> {
    let (factor, original, low, high) = match rope.scaling {
        RopeScaling::None => return Ok(None),
        RopeScaling::Llama3 { factor, original, low, high } => (factor, original, low, high),
        RopeScaling::Yarn { .. } => {
            return Err(ExportError::Unsupported(
                "rope scaling `yarn` is not written as GGUF: llama3 is".into(),
            ));
        }
    };
    let divisor = |i: usize| {
        let turns = original * rope.theta.powf(-2.0 * i as f64 / head_dim as f64) / (2.0 * PI);
        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    Ok(Some((0..head_dim / 2).map(divisor).collect()))
}

/// Llama 3's parameters behind the divisors of its rotation's frequencies, `[head_dim / 2]`.
///
/// With s = (turns − low) / (high − low) a divisor is 1 / ((1 − s) / factor + s), s between 0 and
/// 1, and turns is the frequency times the trained context / 2π. So s is linear in the frequency:
/// two divisors that are neither 1 nor the factor give all parameters (`low` may be chosen: only
/// the products count). Where fewer are, the published values are tried. What comes of the
/// parameters must be the divisors.
pub(super) fn from_divisors(factors: &[f32], theta: f64, head_dim: u64) -> Result<Value> {
    let factor = factors.iter().copied().map(exact).fold(1.0, f64::max);
    if factors.iter().all(|f| *f == 1.0) {
        return Ok(Value::Null);
    }
    let named = |low, high, original| RopeScaling::Llama3 { factor, original, low, high };
    let fits = |scaling: &RopeScaling| {
        let rope = Rope { theta, scaling: scaling.clone() };
        let made = divisors(&rope, head_dim as usize).ok().flatten().unwrap_or_default();
        made.len() == factors.len()
            && made.iter().zip(factors).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs())
    };
    let published = [8192.0, 4096.0, 2048.0].map(|original| named(1.0, 4.0, original));
    let between: Vec<(f64, f64)> = (0..factors.len())
        .zip(factors.iter().copied().map(exact))
        .filter(|(_, f)| *f > 1.0 + 1e-6 && *f < factor * (1.0 - 1e-6))
        .map(|(i, f)| {
            let frequency = theta.powf(-2.0 * i as f64 / head_dim as f64);
            (frequency, (1.0 / f - 1.0 / factor) / (1.0 - 1.0 / factor))
        })
        .collect();
    let solved = between.first().zip(between.last()).filter(|(a, b)| a.0 != b.0).map(|(a, b)| {
        let slope = (a.1 - b.1) / (a.0 - b.0);
        let width = 1.0 / (slope * a.0 - a.1);
        named(1.0, 1.0 + width, slope * 2.0 * PI * width)
    });
    let found = published.into_iter().chain(solved).find(|scaling| fits(scaling));
    found.and_then(|scaling| hf::scaling(&scaling)).map(Value::Object).ok_or_else(|| {
        ExportError::Unsupported(
            "the divisors in rope_freqs.weight are not of Llama 3's form: they are not known here"
                .into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of others have the divisors alone.
    #[test]
    fn parameters_are_found_in_their_divisors() {
        let rope = |factor, original, high| Rope {
            theta: 500_000.0,
            scaling: RopeScaling::Llama3 { factor, original, low: 1.0, high },
        };
        for (original, factor, high) in
            [(8192.0, 8.0, 4.0), (8192.0, 32.0, 4.0), (3000.0, 5.0, 7.5)]
        {
            let factors = divisors(&rope(factor, original, high), 128).unwrap().unwrap();
            let found = from_divisors(&factors, 500_000.0, 128).unwrap();
            let of = |key: &str| found[key].as_f64().unwrap();
            let scaling = RopeScaling::Llama3 {
                factor: of("factor"),
                original: of("original_max_position_embeddings"),
                low: of("low_freq_factor"),
                high: of("high_freq_factor"),
            };
            let back = divisors(&Rope { theta: 500_000.0, scaling }, 128).unwrap().unwrap();
            for (a, b) in back.iter().zip(&factors) {
                assert!((a - b).abs() < 1e-4 * b, "{a} against {b}");
            }
        }
        assert_eq!(from_divisors(&[1.0; 64], 500_000.0, 128).unwrap(), Value::Null);
        let odd: Vec<f32> = (0..64).map(|i| 1.0 + i as f32).collect();
        assert!(from_divisors(&odd, 500_000.0, 128).is_err());
    }
}

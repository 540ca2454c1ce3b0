//! Finite differences, and what a probe found held against them.

use candle_core::Tensor;
use uspx_domain::{Column, Deposit, Statistic, Unit, UnitKind};
use uspx_model::Result;
use uspx_model::taps::{Site, Taps};

/// A derivative, and how far it may be off.
pub struct Slope {
    pub value: f64,
    pub error: f64,
}

/// The derivative of `loss` at 0: central differences at a step and at half of it, extrapolated to
/// none (Richardson). It is taken to be off by no more than the extrapolation moved it.
pub fn slope(step: f64, loss: impl Fn(f64) -> f64) -> Slope {
    let central = |h: f64| (loss(h) - loss(-h)) / (2.0 * h);
    let (wide, narrow) = (central(step), central(step / 2.0));
    let value = (4.0 * narrow - wide) / 3.0;
    Slope { value, error: (value - narrow).abs() }
}

/// One column of a value, `[rows, columns]`, scaled.
fn scaled_column(value: &Tensor, column: u32, factor: f64) -> Result<Tensor> {
    let factors = (0..value.dim(1)? as u32).map(|c| if c == column { factor } else { 1.0 });
    let factors = Tensor::from_iter(factors, value.device())?.unsqueeze(0)?;
    Ok(value.broadcast_mul(&factors.to_dtype(value.dtype())?)?)
}

/// Scales one unit's output by `factor`.
pub fn scaling(kind: UnitKind, layer: usize, index: u32, factor: f64) -> impl Taps {
    move |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        match (site, kind) {
            (Site::ExpertOut(at), UnitKind::Expert) if at.layer == layer && at.expert == index => {
                Ok(Some((value * factor)?))
            }
            (Site::Channels { layer: l }, UnitKind::Channel) if l == layer => {
                scaled_column(value, index, factor).map(Some)
            }
            (Site::ExpertChannels(at), UnitKind::ExpertChannel) if at.layer == layer => {
                let inner = value.dim(1)? as u32;
                let here = index / inner == at.expert;
                here.then(|| scaled_column(value, index % inner, factor)).transpose()
            }
            (Site::Z { layer: l }, UnitKind::Head) if l == layer => {
                let factors =
                    (0..value.dim(1)? as u32).map(|h| if h == index { factor } else { 1.0 });
                let factors = Tensor::from_iter(factors, value.device())?.reshape((1, (), 1))?;
                Ok(Some(value.broadcast_mul(&factors.to_dtype(value.dtype())?)?))
            }
            _ => Ok(None),
        }
    }
}

/// A unit's effect over all prompts.
fn sum(column: &Column) -> f64 {
    column.values.iter().copied().map(f64::from).sum()
}

/// Holds the effects of some units, and the positive ones made of the same values, against the
/// slopes that they are to be.
pub fn prove(
    (which, deposit): (&str, &Deposit),
    [signed, positive]: [Statistic; 2],
    some: impl Fn(u32) -> bool,
    slope_of: impl Fn(Unit) -> Slope,
) {
    let of = |statistic| {
        let some = &some;
        deposit.columns.iter().filter(move |c| c.statistic == statistic && some(c.unit.index))
    };
    let (mut proved, mut worst) = (0, 0f64);
    for (signed, positive) in of(signed).zip(of(positive)) {
        let (unit, scale) = (signed.unit, sum(positive));
        assert_eq!(unit, positive.unit);
        let wanted = slope_of(unit);
        assert!(
            wanted.error <= 1e-4 * scale,
            "{which} {unit}: the difference is off by {}, of {scale}",
            wanted.error
        );
        let off = (sum(signed) - wanted.value).abs();
        assert!(off <= 2e-4 * scale, "{which} {unit}: {off} off {}, of {scale}", wanted.value);
        worst = worst.max(off / scale);
        proved += usize::from(wanted.value.abs() > 1e-1 * scale);
    }
    println!("{which}: at worst off by {worst:.1e} of what the effect is made of");
    assert!(proved >= 4, "{which}: only {proved} derivatives were large enough to prove anything");
}

/// The same of units that are told as moments, of which Σx is held against the slope: of each layer
/// the largest, and one more.
pub fn prove_moments(
    (which, deposit): (&str, &Deposit),
    [signed, positive]: [Statistic; 2],
    slope_of: impl Fn(Unit) -> Slope,
) {
    let of = |statistic| deposit.moments.iter().filter(move |m| m.statistic == statistic);
    let mut proved = 0;
    for (signed, positive) in of(signed).zip(of(positive)) {
        let largest =
            (0..positive.x.len()).max_by(|a, b| positive.x[*a].total_cmp(&positive.x[*b]));
        for at in [largest.unwrap(), 5] {
            let unit = Unit { kind: signed.kind, layer: signed.layer, index: at as u32 };
            let wanted = slope_of(unit);
            let (got, scale) = (f64::from(signed.x[at]), f64::from(positive.x[at]));
            assert!(positive.x[at] >= signed.x[at].abs() * 0.999, "{which} {unit}");
            let off = (got - wanted.value).abs();
            let bound = 3e-4 * scale + wanted.error;
            assert!(off <= bound, "{which} {unit}: {got} against {}", wanted.value);
            proved += usize::from(wanted.value.abs() > 1e-1 * scale);
        }
    }
    assert!(proved >= 4, "{which}: only {proved} derivatives were large enough");
}

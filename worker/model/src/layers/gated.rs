//! The gated units between an MLP's products: in one pass over their values on the CPU in f32, and
//! gpt-oss's on CUDA; elsewhere by the tensor library's operations.

use crate::custom_gradient::with_gradient;
use crate::layers::relevance::{through_clamped_unit, through_swiglu};
use crate::layers::slices::{elements, is_float, with_values};
use crate::taps::Backward;
use crate::{ModelError, Result, cuda};
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use uspx_kernel::exp;

/// gpt-oss's unit, (up + 1) · gate · σ(alpha · gate), gate clamped from above and up from both
/// sides: `[S, 2·inner]` with gate and up interleaved to `[S, inner]`; carries back as `back` says.
///
/// # Errors
/// An odd width; those of the tensor library.
pub fn clamped_unit(pairs: &Tensor, (alpha, limit): (f64, f64), back: Backward) -> Result<Tensor> {
    if back == Backward::Relevance {
        let y = clamped_unit(&pairs.detach(), (alpha, limit), Backward::Gradient)?;
        return through_clamped_unit(pairs, y, (alpha, limit));
    }
    let (rows, width) = pairs.dims2()?;
    if !width.is_multiple_of(2) {
        return Err(ModelError::Request(format!(
            "gate and up interleaved need an even width, not {width}"
        )));
    }
    if is_float(pairs) {
        let unit = ClampedUnit { alpha: alpha as f32, limit: limit as f32 };
        let y = Tensor::from_vec(unit.values(pairs)?, (rows, width / 2), pairs.device())?;
        return Ok(with_gradient("clamped-unit", pairs, y, move |x, _, grad| {
            Tensor::from_vec(unit.gradients(x, grad)?, x.shape(), x.device())
        })?);
    }
    if cuda::serves(pairs) {
        let y = cuda::unit(&pairs.detach(), alpha, limit)?;
        return Ok(with_gradient("clamped-unit", pairs, y, move |x, _, grad| {
            cuda::unit_back(x, grad, alpha, limit)
        })?);
    }
    let [gate, up] = halves(pairs)?;
    let (gate, up) = (gate.minimum(limit)?, up.clamp(-limit, limit)?);
    let swish = (&gate * candle_nn::ops::sigmoid(&(&gate * alpha)?)?)?;
    Ok(((up + 1.0)? * swish)?)
}

/// Gate and up of interleaved pairs, `[S, inner]` each.
pub(super) fn halves(pairs: &Tensor) -> candle_core::Result<[Tensor; 2]> {
    let (rows, width) = pairs.dims2()?;
    let apart = pairs.reshape((rows, width / 2, 2))?;
    let half = |i| apart.narrow(2, i, 1)?.squeeze(2)?.contiguous();
    Ok([half(0)?, half(1)?])
}

/// gpt-oss's unit on the CPU in f32.
#[derive(Clone, Copy)]
struct ClampedUnit {
    alpha: f32,
    limit: f32,
}

impl ClampedUnit {
    fn values(self, pairs: &Tensor) -> candle_core::Result<Vec<f32>> {
        with_values(&pairs.detach(), |pairs| {
            let (pairs, _) = pairs.as_chunks::<2>();
            let mut units: Vec<f32> =
                pairs.iter().map(|[gate, _]| -self.alpha * at_most(*gate, self.limit)).collect();
            exp(&mut units);
            for ([gate, up], unit) in pairs.iter().zip(&mut units) {
                let (gate, up) = self.clamped(*gate, *up);
                *unit = (up + 1.0) * gate / (1.0 + *unit);
            }
            units
        })
    }

    /// Of the pairs, from those of the unit's values. Nothing flows through what was clamped.
    fn gradients(self, pairs: &Tensor, grad: &Tensor) -> candle_core::Result<Vec<f32>> {
        let one = |(pair, grad): (&[f32], &f32)| match pair {
            [gate, up] => {
                let (kept, clamped) = self.clamped(*gate, *up);
                let s = sigmoid(self.alpha * kept);
                let by_gate = (clamped + 1.0) * s * (1.0 + self.alpha * kept * (1.0 - s));
                [
                    if *gate > self.limit { 0.0 } else { grad * by_gate },
                    if up.abs() > self.limit { 0.0 } else { grad * kept * s },
                ]
            }
            _ => [0.0; 2],
        };
        with_values(pairs, |pairs| {
            with_values(&grad.detach(), |grad| {
                pairs.chunks_exact(2).zip(grad).flat_map(one).collect()
            })
        })?
    }

    fn clamped(self, gate: f32, up: f32) -> (f32, f32) {
        (at_most(gate, self.limit), at_least(at_most(up, self.limit), -self.limit))
    }
}

/// The smaller of the two; not a number stays so, which `f32::min` would hide.
fn at_most(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

/// The larger of the two, likewise.
fn at_least(x: f32, limit: f32) -> f32 {
    if x < limit { limit } else { x }
}

/// silu(gate) · up, element by element; carries back as `back` says.
///
/// # Errors
/// Those of the tensor library.
pub fn swiglu(gate: &Tensor, up: &Tensor, back: Backward) -> Result<Tensor> {
    if gate.dims() != up.dims() {
        return Err(ModelError::Request(format!(
            "gate of shape {:?}, up of {:?}",
            gate.dims(),
            up.dims()
        )));
    }
    if back == Backward::Relevance {
        let y = swiglu(&gate.detach(), &up.detach(), Backward::Gradient)?;
        return through_swiglu(gate, up, y);
    }
    if is_float(gate) && is_float(up) {
        return Ok(gate.contiguous()?.apply_op2(&up.contiguous()?, Fused)?);
    }
    Ok((gate.silu()? * up)?)
}

struct Fused;

fn vector(x: &Tensor) -> candle_core::Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl CustomOp2 for Fused {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        gl: &Layout,
        u: &CpuStorage,
        ul: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (gate, up) = (elements(g, gl)?, elements(u, ul)?);
        let mut out: Vec<f32> = gate.iter().map(|g| -g).collect();
        exp(&mut out);
        for ((g, u), out) in gate.iter().zip(up).zip(&mut out) {
            *out = g / (1.0 + *out) * u;
        }
        Ok((CpuStorage::F32(out), gl.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (gates, ups, mut by_up) = (vector(gate)?, vector(up)?, vector(grad)?);
        let mut by_gate = Vec::with_capacity(gates.len());
        for ((g, u), d) in gates.iter().zip(&ups).zip(&mut by_up) {
            let s = sigmoid(*g);
            by_gate.push(*d * u * s * (1.0 + g * (1.0 - s)));
            *d *= g * s;
        }
        let tensor = |values| Tensor::from_vec(values, gate.shape(), gate.device());
        Ok((Some(tensor(by_gate)?), Some(tensor(by_up)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn the_fused_pass_agrees_with_the_plain_one() {
        let values = |seed: u32| -> Vec<f32> {
            (0..35).map(|i| ((i * 37 + seed * 11) % 41) as f32 / 5.0 - 4.0).collect()
        };
        let results = [true, false].map(|fused| {
            let [gate, up] =
                [1, 2].map(|s| Var::from_slice(&values(s), (5, 7), &Device::Cpu).unwrap());
            let y = if fused {
                swiglu(&gate, &up, Backward::Gradient).unwrap()
            } else {
                (gate.silu().unwrap() * up.as_tensor()).unwrap()
            };
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            [flat(&y), flat(gradients.get(&gate).unwrap()), flat(gradients.get(&up).unwrap())]
                .concat()
        });
        for (a, b) in results[0].iter().zip(&results[1]) {
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} against {b}");
        }
    }

    #[test]
    fn the_clamped_unit_agrees_with_the_tensor_librarys_operations() {
        // Both sides of both clamps.
        let values: Vec<f32> = (0..60).map(|i| ((i * 37 + 11) % 41) as f32 / 5.0 - 4.03).collect();
        let (alpha, limit) = (1.702, 2.5);
        let run = |dtype| {
            let pairs = Var::from_slice(&values, (3, 20), &Device::Cpu).unwrap();
            let pairs_there = pairs.to_dtype(dtype).unwrap();
            let y = clamped_unit(&pairs_there, (alpha, limit), Backward::Gradient).unwrap();
            let loss = y.sqr().unwrap().sum_all().unwrap().to_dtype(DType::F32).unwrap();
            let gradients = loss.backward().unwrap();
            let flat = |t: &Tensor| -> Vec<f32> {
                t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            [flat(&y), flat(gradients.get(&pairs).unwrap())].concat()
        };
        let (ours, theirs) = (run(DType::F32), run(DType::F64));
        assert!(ours.iter().filter(|g| **g == 0.0).count() > 5, "nothing was clamped");
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} against {b}");
        }
    }
}

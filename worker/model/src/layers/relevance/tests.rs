//! Each rule against finite differences of the part with that which is given held still, in f64.

use super::*;
use crate::layers::gated::{clamped_unit, swiglu};
use crate::layers::norm::RmsNorm;
use candle_core::{DType, Device, Var};

const ROWS: usize = 3;
const WIDTH: usize = 8;

fn numbers(seed: usize, count: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 37 + seed * 11) % 41) as f64 / 5.0 - 4.03).collect()
}

fn sigma(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Central differences of `y`, whose values are weighed by `grad`, in each of `x`.
fn slopes(x: &[f64], grad: &[f64], y: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let sum = |x: &[f64]| -> f64 { y(x).iter().zip(grad).map(|(y, g)| y * g).sum() };
    let slope = |at: usize| {
        let moved = |by: f64| {
            let mut x = x.to_vec();
            x[at] += by;
            sum(&x)
        };
        (moved(1e-4) - moved(-1e-4)) / 2e-4
    };
    (0..x.len()).map(slope).collect()
}

/// What is carried back to each input of `run` in a dtype, and the values.
fn carried(
    inputs: &[&[f64]],
    grad: &[f64],
    dtype: DType,
    run: impl Fn(&[Tensor]) -> Tensor,
) -> (Vec<Vec<f64>>, Vec<f64>) {
    let var = |x: &&[f64]| Var::from_slice(x, (ROWS, x.len() / ROWS), &Device::Cpu).unwrap();
    let vars: Vec<Var> = inputs.iter().map(var).collect();
    let typed: Vec<Tensor> = vars.iter().map(|v| v.to_dtype(dtype).unwrap()).collect();
    let y = run(&typed).to_dtype(DType::F64).unwrap();
    let grad = Tensor::from_slice(grad, y.shape(), &Device::Cpu).unwrap();
    let gradients = (&y * grad).unwrap().sum_all().unwrap().backward().unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    (vars.iter().map(|v| flat(gradients.get(v).unwrap())).collect(), flat(&y))
}

/// In f32 as probes run, and in f64 by the tensor library's operations.
fn agrees(
    inputs: &[&[f64]],
    grad: &[f64],
    wanted: &[Vec<f64>],
    run: impl Fn(&[Tensor], Backward) -> Tensor,
) {
    for (dtype, bound) in [(DType::F32, 1e-5), (DType::F64, 1e-8)] {
        let (found, y) = carried(inputs, grad, dtype, |x| run(x, Backward::Relevance));
        let (plain, same) = carried(inputs, grad, dtype, |x| run(x, Backward::Gradient));
        assert_eq!(y, same, "relevance has changed a value");
        assert_ne!(found, plain, "relevance is the gradient here, which proves nothing");
        for (found, wanted) in found.iter().zip(wanted) {
            for (f, w) in found.iter().zip(wanted) {
                assert!((f - w).abs() < bound * w.abs().max(1.0), "{dtype:?}: {f} against {w}");
            }
        }
    }
}

#[test]
fn a_norms_denominator_is_given() {
    let (x, grad) = (numbers(1, ROWS * WIDTH), numbers(2, ROWS * WIDTH));
    let gain = numbers(3, WIDTH);
    let clean: Vec<f64> = x
        .chunks(WIDTH)
        .map(|row| (row.iter().map(|v| v * v).sum::<f64>() / WIDTH as f64 + 1e-5).sqrt())
        .collect();
    let frozen = |x: &[f64]| -> Vec<f64> {
        x.iter().enumerate().map(|(i, v)| v / clean[i / WIDTH] * gain[i % WIDTH]).collect()
    };
    agrees(&[&x], &grad, &[slopes(&x, &grad, frozen)], |x, back| {
        let gain = Tensor::from_slice(&gain, WIDTH, &Device::Cpu).unwrap();
        RmsNorm::new(gain.to_dtype(x[0].dtype()).unwrap(), 1e-5).forward(&x[0], back).unwrap()
    });
}

#[test]
fn each_factor_of_a_gated_unit_has_half_and_the_gate_its_own_factor() {
    let [gate, up, grad] = [1, 2, 3].map(|seed| numbers(seed, ROWS * WIDTH));
    // Half of it with `up` as it is moved, half with the gate.
    let frozen = |moved_gate: &[f64], moved_up: &[f64]| -> Vec<f64> {
        let one = |i: usize| {
            let factor = sigma(gate[i]);
            0.5 * factor * (gate[i] * moved_up[i] + moved_gate[i] * up[i])
        };
        (0..gate.len()).map(one).collect()
    };
    let wanted = [
        slopes(&gate, &grad, |gate| frozen(gate, &up)),
        slopes(&up, &grad, |up| frozen(&gate, up)),
    ];
    agrees(&[&gate, &up], &grad, &wanted, |x, back| swiglu(&x[0], &x[1], back).unwrap());
}

#[test]
fn clamps_are_activations_and_one_is_a_bias() {
    let (alpha, limit) = (1.702, 2.5);
    let mut pairs = numbers(1, ROWS * WIDTH);
    // Where act(x)/x could not be divided.
    (pairs[0], pairs[3]) = (0.0, 0.0);
    let grad = numbers(2, ROWS * WIDTH / 2);
    assert!(pairs.iter().filter(|x| x.abs() > limit).count() > 5, "nothing is clamped");
    let frozen = |moved: &[f64]| -> Vec<f64> {
        let one = |(clean, moved): (&[f64], &[f64])| {
            let of = |x: f64, clamped: f64| if x == clamped { 1.0 } else { clamped / x };
            let gate = clean[0].min(limit);
            let by_gate = of(clean[0], gate) * sigma(alpha * gate);
            let by_up = of(clean[1], clean[1].clamp(-limit, limit));
            let glu = |pair: &[f64]| by_gate * pair[0];
            let one_more = |pair: &[f64]| by_up * pair[1] + 1.0;
            0.5 * (glu(clean) * one_more(moved) + glu(moved) * one_more(clean))
        };
        pairs.chunks(2).zip(moved.chunks(2)).map(one).collect()
    };
    agrees(&[&pairs], &grad, &[slopes(&pairs, &grad, frozen)], |x, back| {
        clamped_unit(&x[0], (alpha, limit), back).unwrap()
    });
}

//! Losses against their definitions: a brute-force value in doubles, and its finite differences.

use super::{Lesson, Loss};
use candle_core::{Device, Tensor, Var};
use uspx_model::batch::Sequence;

/// Log-probabilities of each row.
pub fn log_softmax(logits: &[f64], vocabulary: usize) -> Vec<Vec<f64>> {
    let row = |row: &[f64]| {
        let norm = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        row.iter().map(|x| x - norm).collect()
    };
    logits.chunks(vocabulary).map(row).collect()
}

/// Logits without two that are equal.
pub fn logits(rows: usize, vocabulary: usize) -> Vec<f64> {
    let each = |i: usize| ((i * 37 + 11) % 101) as f64 / 20.0 - 2.5 + i as f64 * 1e-3;
    (0..rows * vocabulary).map(each).collect()
}

/// A lesson of so many response tokens.
pub fn lesson<S>(tokens: usize, said: S) -> Lesson<S> {
    Lesson { sequence: Sequence { ids: vec![0; 1 + tokens], response_start: 1 }, said }
}

/// Holds value and gradient of a loss against `brute_force(logits, weight)`.
pub fn holds<L: Loss>(
    loss: &L,
    lessons: &[Lesson<L::Said>],
    hard: &[u32],
    vocabulary: usize,
    brute_force: impl Fn(&[f64], f64) -> f64,
) {
    let all: Vec<&Lesson<L::Said>> = lessons.iter().collect();
    let start = logits(hard.len(), vocabulary);
    for weight in [0.0, 0.25, 1.0] {
        let x = Var::from_slice(&start, (hard.len(), vocabulary), &Device::Cpu).unwrap();
        let ours = loss.loss(&x, hard, &all, weight).unwrap();
        let (got, weight) = (ours.to_scalar::<f64>().unwrap(), f64::from(weight));
        let want = brute_force(&start, weight);
        assert!((got - want).abs() < 1e-9 * (1.0 + want.abs()), "{weight}: {got} against {want}");
        let gradients = (ours * 3.0).unwrap().backward().unwrap();
        let gradient = gradients.get(&x).unwrap().flatten_all().unwrap();
        for (i, got) in gradient.to_vec1::<f64>().unwrap().into_iter().enumerate() {
            let moved = |by: f64| {
                let mut moved = start.clone();
                moved[i] += by;
                brute_force(&moved, weight)
            };
            let want = 3.0 * (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((got - want).abs() < 1e-6, "weight {weight}, {i}: {got} against {want}");
        }
        // In floats the same, as far as they go.
        let x = Tensor::from_slice(&start, (hard.len(), vocabulary), &Device::Cpu).unwrap();
        let x = x.to_dtype(candle_core::DType::F32).unwrap();
        let got = loss.loss(&x, hard, &all, weight as f32).unwrap().to_scalar::<f32>().unwrap();
        let want = brute_force(&start, weight);
        assert!((f64::from(got) - want).abs() < 1e-4, "{weight}: {got} against {want}");
    }
}

//! Cross-entropy against the text, mixed with the teacher's distribution over the student's tokens
//! ([`crate::align`]).
//!
//! At each response position, with y the answer's token, q the teacher's known masses (Σq ≤ 1) and
//! weight w: loss = −Σᵥ t(v)·log p(v), where t = w·q + (1 − w·Σq)·[v = y]. It is cross-entropy
//! against one proper distribution; its gradient is p − t, and up to a constant it is KL(t ‖ p).
//! Where nothing is known of the teacher it is plain cross-entropy.

use super::{Lesson, Loss, masses};
use crate::Result;
use crate::align::{Soft, soft};
use crate::labels::Labels;
use crate::reading::Reading;
use candle_core::{D, DType, Tensor};
use uspx_model::chat::Chat;
use uspx_model::custom_gradient::with_gradient;

/// The teacher's distribution carried over by bytes.
pub struct Hybrid;

impl Loss for Hybrid {
    type Said = Soft;

    fn new(_: &[Labels], _: &Chat) -> Self {
        Self
    }

    fn said(&self, reading: &Reading<'_>) -> Result<Soft> {
        soft(reading)
    }

    fn loss(
        &self,
        logits: &Tensor,
        hard: &[u32],
        lessons: &[&Lesson<Soft>],
        weight: f32,
    ) -> Result<Tensor> {
        let targets = Targets::new(hard, &masses(lessons), weight, logits.device())?;
        soft_cross_entropy(logits, &targets)
    }
}

/// A target distribution for each row, sparse and padded: `[rows, width]` each.
struct Targets {
    ids: Tensor,
    masses: Tensor,
}

impl Targets {
    /// Mixes the answer's tokens `hard` with the teacher's masses `soft`, weighted by `weight`.
    fn new(
        hard: &[u32],
        soft: &[&[(u32, f32)]],
        weight: f32,
        device: &candle_core::Device,
    ) -> Result<Self> {
        let width =
            1 + if weight > 0.0 { soft.iter().map(|s| s.len()).max().unwrap_or(0) } else { 0 };
        let (mut ids, mut masses) =
            (Vec::with_capacity(hard.len() * width), Vec::with_capacity(hard.len() * width));
        for (at, &own) in hard.iter().enumerate() {
            let soft = soft.get(at).copied().unwrap_or_default();
            let soft = if weight > 0.0 { soft } else { &[] };
            let known: f32 = soft.iter().map(|(_, m)| m).sum();
            ids.push(own);
            masses.push(1.0 - weight * known);
            for &(id, mass) in soft {
                ids.push(id);
                masses.push(weight * mass);
            }
            // Padding repeats the answer's token without mass.
            ids.resize((at + 1) * width, own);
            masses.resize((at + 1) * width, 0.0);
        }
        let shape = (hard.len(), width);
        Ok(Self {
            ids: Tensor::from_vec(ids, shape, device)?,
            masses: Tensor::from_vec(masses, shape, device)?,
        })
    }
}

/// Logits that are there as floats at once, about: those of a large vocabulary, with their softmax and what
/// lies between, would not fit beside a student.
const SLAB: usize = 1 << 23;

/// The summed loss of all rows of `logits`, `[rows, vocab]`; a scalar. The gradient is made with it, some
/// rows at a time, so that nothing else as large as the logits is kept.
fn soft_cross_entropy(logits: &Tensor, targets: &Targets) -> Result<Tensor> {
    let (rows, vocab) = logits.dims2()?;
    let fixed = logits.detach();
    let (mut losses, mut pulls) = (Vec::new(), Vec::new());
    let height = (SLAB / vocab.max(1)).max(1);
    for first in (0..rows).step_by(height) {
        let part = |t: &Tensor| t.narrow(0, first, height.min(rows - first));
        let (loss, pull) =
            part_of_it(&part(&fixed)?, (&part(&targets.ids)?, &part(&targets.masses)?))?;
        losses.push(loss);
        pulls.push(pull.to_dtype(logits.dtype())?);
    }
    let (loss, pull) = (Tensor::stack(&losses, 0)?.sum_all()?, Tensor::cat(&pulls, 0)?);
    drop(pulls);
    Ok(with_gradient("soft-cross-entropy", logits, loss, move |_, _, grad| {
        pull.broadcast_mul(&grad.to_dtype(pull.dtype())?)
    })?)
}

/// The same of some rows, with the gradient p − t by their logits; the masses of a row sum to 1.
fn part_of_it(logits: &Tensor, (ids, masses): (&Tensor, &Tensor)) -> Result<(Tensor, Tensor)> {
    let dtype = if logits.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let (logits, masses) = (logits.to_dtype(dtype)?.contiguous()?, masses.to_dtype(dtype)?);
    let ids = ids.contiguous()?;
    let normaliser = logits.log_sum_exp(D::Minus1)?.unsqueeze(1)?;
    let picked = logits.gather(&ids, 1)?.broadcast_sub(&normaliser)?;
    let loss = (picked * &masses)?.sum_all()?.neg()?;
    let p = candle_nn::ops::softmax_last_dim(&logits)?;
    Ok((loss, p.scatter_add(&ids, &masses.neg()?, D::Minus1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn case() -> (Vec<f64>, Vec<u32>, Soft) {
        let logits: Vec<f64> =
            (0..4 * 7).map(|i| f64::from((i * 37 % 23) as u32) / 5.0 - 2.0).collect();
        let soft = vec![
            vec![(0, 0.5), (3, 0.25)],
            vec![],
            vec![(6, 1.0)],
            vec![(1, 0.125), (2, 0.125), (5, 0.5)],
        ];
        (logits, vec![3, 1, 0, 5], soft)
    }

    fn brute_force(logits: &[f64], hard: &[u32], soft: &[Vec<(u32, f32)>], w: f64) -> f64 {
        let mut total = 0.0;
        for (r, row) in logits.chunks(7).enumerate() {
            let norm = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            let mut target = [0.0; 7];
            let known: f64 = soft[r].iter().map(|(_, m)| f64::from(*m)).sum();
            target[hard[r] as usize] += 1.0 - w * known;
            for (id, m) in &soft[r] {
                target[*id as usize] += w * f64::from(*m);
            }
            assert!((target.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            total -= row.iter().zip(target).map(|(x, t)| t * (x - norm)).sum::<f64>();
        }
        total
    }

    fn ours(logits: &Tensor, hard: &[u32], soft: &[Vec<(u32, f32)>], w: f32) -> Tensor {
        let soft: Vec<&[(u32, f32)]> = soft.iter().map(Vec::as_slice).collect();
        soft_cross_entropy(logits, &Targets::new(hard, &soft, w, &Device::Cpu).unwrap()).unwrap()
    }

    #[test]
    fn agrees_with_brute_force() {
        let (logits, hard, soft) = case();
        for w in [0.0, 0.25, 1.0] {
            let x = Tensor::from_slice(&logits, (4, 7), &Device::Cpu).unwrap();
            let got = ours(&x, &hard, &soft, w).to_scalar::<f64>().unwrap();
            let want = brute_force(&logits, &hard, &soft, f64::from(w));
            assert!((got - want).abs() < 1e-9, "weight {w}: {got} against {want}");
        }
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let (logits, hard, soft) = case();
        let x = Var::from_slice(&logits, (4, 7), &Device::Cpu).unwrap();
        let loss = (ours(&x, &hard, &soft, 0.5) * 3.0).unwrap();
        let grad: Vec<f64> =
            loss.backward().unwrap().get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for i in 0..logits.len() {
            let mut moved = [logits.clone(), logits.clone()];
            moved[0][i] += 1e-5;
            moved[1][i] -= 1e-5;
            let [up, down] = moved.map(|m| brute_force(&m, &hard, &soft, 0.5));
            let want = 3.0 * (up - down) / 2e-5;
            assert!((grad[i] - want).abs() < 1e-6, "{i}: {} against {want}", grad[i]);
        }
    }
}

//! The gradient of attention on a GPU, from queries, keys and values alone: probabilities are computed once
//! more, of some heads at a time, so that they are never there for a whole layer (the recomputation of Dao
//! et al. 2022, arXiv 2205.14135, by rectangles and with the tensor library's products).

use crate::layers::rectangle::Rectangle;
use crate::layers::rows::pick_or_zero;
use crate::{ModelError, Result};
use candle_core::{D, DType, Tensor};

/// Scores that are laid out at once, about.
const SCORES: usize = 1 << 22;

/// What attention was made of, nothing of which is differentiated.
pub(super) struct Made {
    /// `[N, heads, dim]`.
    pub q: Tensor,
    /// `[N, kv heads, dim]`, as `v`.
    pub k: Tensor,
    /// See `k`.
    pub v: Tensor,
    /// One logit per head that joins the softmax, `[heads]`.
    pub sinks: Option<Tensor>,
    /// The batch; each of its rows is one sequence's alone.
    pub rectangles: Vec<Rectangle>,
    /// What may be seen, in tokens.
    pub window: Option<usize>,
}

/// Queries, keys, values and the gradient of what came of them, by head: `[heads, N, dim]`.
struct ByHead {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad: Tensor,
    sinks: Option<Tensor>,
}

impl Made {
    /// The gradients of queries, keys and values, from that of the heads' outputs `[N, heads, dim]`. Without
    /// `weights` those of queries and keys are not wanted.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn back(&self, grad: &Tensor, weights: bool) -> Result<[Option<Tensor>; 3]> {
        let dtype = self.q.dtype();
        let exact = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let by_head = |x: &Tensor| -> Result<Tensor> {
            Ok(x.detach().transpose(0, 1)?.contiguous()?.to_dtype(exact)?)
        };
        let sinks = self.sinks.as_ref().map(|s| s.to_dtype(exact)).transpose()?;
        let (q, k) = (by_head(&self.q)?, by_head(&self.k)?);
        let all = ByHead { q, k, v: by_head(&self.v)?, grad: by_head(grad)?, sinks };
        let (kv, group) = (all.k.dim(0)?, all.q.dim(0)? / all.k.dim(0)?.max(1));
        let step = self.heads_at_once(group);
        let mut found = [Vec::new(), Vec::new(), Vec::new()];
        for first in (0..kv).step_by(step) {
            let some = all.heads((first, step.min(kv - first)), group)?;
            for (all, part) in found.iter_mut().zip(self.of_heads(&some, weights)?) {
                all.extend(part);
            }
        }
        let joined = |parts: &Vec<Tensor>| -> Result<Option<Tensor>> {
            if parts.is_empty() {
                return Ok(None);
            }
            Ok(Some(Tensor::cat(parts, 0)?.to_dtype(dtype)?.transpose(0, 1)?.contiguous()?))
        };
        let [q, k, v] = &found;
        Ok([joined(q)?, joined(k)?, joined(v)?])
    }

    /// KV heads whose scores are laid out at once.
    fn heads_at_once(&self, group: usize) -> usize {
        let scores = self.rectangles.iter().map(Rectangle::scores).max().unwrap_or(0);
        (SCORES / (scores * group).max(1)).max(1)
    }

    /// The same of some heads: `[heads, N, dim]`.
    fn of_heads(&self, heads: &ByHead, weights: bool) -> Result<[Option<Tensor>; 3]> {
        let mut found = [Vec::new(), Vec::new(), Vec::new()];
        for rectangle in &self.rectangles {
            let parts = heads.in_rectangle(rectangle, self.window, weights)?;
            for (all, part) in found.iter_mut().zip(parts) {
                all.extend(part);
            }
        }
        let joined = |parts: &Vec<Tensor>| -> Result<Option<Tensor>> {
            Ok((!parts.is_empty()).then(|| Tensor::cat(parts, 1)).transpose()?)
        };
        let [q, k, v] = &found;
        Ok([joined(q)?, joined(k)?, joined(v)?])
    }
}

impl ByHead {
    /// So many KV heads from `first` on, with their query heads.
    fn heads(&self, (first, count): (usize, usize), group: usize) -> Result<Self> {
        let own = |x: &Tensor, times: usize| x.narrow(0, first * times, count * times);
        Ok(Self {
            q: own(&self.q, group)?,
            k: own(&self.k, 1)?,
            v: own(&self.v, 1)?,
            grad: own(&self.grad, group)?,
            sinks: self.sinks.as_ref().map(|s| own(s, group)).transpose()?,
        })
    }

    /// The gradients of one rectangle's rows: P = softmax(q·kᵀ / √d), of the output O = P·v:
    /// dv = Pᵀ·dO; dS = P ⊙ (dO·vᵀ − Σ P ⊙ dO·vᵀ); dq = dS·k / √d; dk = dSᵀ·q / √d.
    fn in_rectangle(
        &self,
        rectangle: &Rectangle,
        window: Option<usize>,
        weights: bool,
    ) -> Result<[Option<Tensor>; 3]> {
        let heads = self.q.dim(0)?;
        let padded = |x: &Tensor| rectangle.pad(&x.contiguous()?);
        let scale = 1.0 / (self.q.dim(2)? as f64).sqrt();
        let q = (padded(&self.q)? * scale)?;
        let (k, v) = (spread(&padded(&self.k)?, heads)?, spread(&padded(&self.v)?, heads)?);
        let grad = rectangle.pad_with_zeros(&self.grad)?;
        let bias = rectangle.bias(window)?.to_dtype(q.dtype())?;
        let p = self.probabilities(q.matmul(&turned(&k)?)?.broadcast_add(&bias)?)?;
        let back = |x: &Tensor| rectangle.unpad(x);
        let dv = back(&gathered(&turned(&p)?.matmul(&grad)?, self.v.dim(0)?)?)?;
        if !weights {
            return Ok([None, None, Some(dv)]);
        }
        let dp = grad.matmul(&turned(&v)?)?;
        let along = (&p * &dp)?.sum_keepdim(D::Minus1)?;
        let ds = (p * dp.broadcast_sub(&along)?)?;
        let dq = back(&(ds.matmul(&k)? * scale)?)?;
        // The queries are scaled already.
        let dk = back(&gathered(&turned(&ds)?.matmul(&q)?, self.k.dim(0)?)?)?;
        Ok([Some(dq), Some(dk), Some(dv)])
    }

    /// Softmax of scores `[heads, B, T, keys]`, the sinks joining it.
    fn probabilities(&self, scores: Tensor) -> Result<Tensor> {
        let softmax = |x: &Tensor| candle_nn::ops::softmax_last_dim(&x.contiguous()?);
        let Some(sinks) = &self.sinks else { return Ok(softmax(&scores)?) };
        let (heads, b, t, keys) = scores.dims4()?;
        let sinks =
            sinks.reshape((heads, 1, 1, 1))?.broadcast_as((heads, b, t, 1))?.contiguous()?;
        let joined = softmax(&Tensor::cat(&[&scores, &sinks], D::Minus1)?)?;
        Ok(joined.narrow(D::Minus1, 0, keys)?.contiguous()?)
    }
}

/// The last two dimensions exchanged.
fn turned(x: &Tensor) -> Result<Tensor> {
    Ok(x.transpose(2, 3)?.contiguous()?)
}

/// Each KV head beside the query heads that share it.
pub(super) fn spread(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (kv, b, t, d) = x.dims4()?;
    if kv == heads {
        return Ok(x.clone());
    }
    let wide = x.unsqueeze(1)?.expand((kv, heads / kv, b, t, d))?;
    Ok(wide.contiguous()?.reshape((heads, b, t, d))?)
}

/// What the query heads of each KV head add up to.
fn gathered(x: &Tensor, kv: usize) -> Result<Tensor> {
    let (heads, b, t, d) = x.dims4()?;
    if kv == heads {
        return Ok(x.clone());
    }
    if kv == 0 {
        return Err(ModelError::Request("attention without key heads".into()));
    }
    Ok(x.reshape((kv, heads / kv, b, t, d))?.sum(1)?)
}

impl Rectangle {
    /// Scores of a head.
    fn scores(&self) -> usize {
        let (rows, width) = self.size();
        rows * width * width
    }

    /// [`Rectangle::pad`] of the batch's rows, with zeros where padding is.
    fn pad_with_zeros(&self, x: &Tensor) -> Result<Tensor> {
        let (heads, _, d) = x.dims3()?;
        let (rows, width) = self.size();
        let lacks = || ModelError::Request("a batch whose rows are in several sequences".into());
        let own = self.own().ok_or_else(lacks)?;
        let x = x.narrow(1, own.start, own.len())?.contiguous()?;
        Ok(pick_or_zero(&x, 1, self.places())?.reshape((heads, rows, width, d))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Sequence};
    use crate::config::ModelConfig;
    use crate::layers::frame::Frame;
    use crate::layers::rope::Rotary;
    use candle_core::{Device, Var};

    const DIM: usize = 4;

    fn values(shape: (usize, usize, usize), seed: usize) -> Tensor {
        let count = shape.0 * shape.1 * shape.2;
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 211) as f64 / 105.0 - 1.0;
        Tensor::from_vec((0..count).map(value).collect::<Vec<f64>>(), shape, &Device::Cpu).unwrap()
    }

    fn frame(lengths: &[usize], window: Option<usize>) -> Frame {
        let sequences: Vec<Sequence> =
            lengths.iter().map(|n| Sequence { ids: vec![0; *n], response_start: 1 }).collect();
        let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
        let config =
            ModelConfig::from_json(include_str!("../../../../cli/assets/nano/student/config.json"))
                .unwrap();
        let rotary = Rotary::new(&config.rope, DIM);
        Frame::whole(&batch, &[window], &rotary, (DType::F64, &Device::Cpu)).unwrap()
    }

    /// Everything laid out, sequence by sequence, in plain f64 operations that candle differentiates itself.
    fn laid_out(
        [q, k, v]: [&Tensor; 3],
        sinks: Option<&Tensor>,
        lengths: &[usize],
        window: Option<usize>,
    ) -> Tensor {
        let (heads, kv) = (q.dim(1).unwrap(), k.dim(1).unwrap());
        let (mut start, mut rows) = (0, Vec::new());
        for &n in lengths {
            let mut outputs = Vec::new();
            for head in 0..heads {
                let of = |x: &Tensor, h| {
                    x.narrow(0, start, n).unwrap().narrow(1, h, 1).unwrap().squeeze(1).unwrap()
                };
                let (q, k, v) = (of(q, head), of(k, head * kv / heads), of(v, head * kv / heads));
                let scores = (q.matmul(&k.t().unwrap()).unwrap() / (DIM as f64).sqrt()).unwrap();
                let hidden: Vec<f64> = (0..n * n)
                    .map(|i| (i / n, i % n))
                    .map(|(q, k)| k <= q && window.is_none_or(|w| q - k < w))
                    .map(|seen| if seen { 1.0 } else { 0.0 })
                    .collect();
                let seen = Tensor::from_vec(hidden, (n, n), &Device::Cpu).unwrap();
                let parts = (scores.exp().unwrap() * seen).unwrap();
                let mut sum = parts.sum_keepdim(1).unwrap();
                if let Some(sinks) = sinks {
                    let sink = sinks.narrow(0, head, 1).unwrap().exp().unwrap();
                    sum = sum.broadcast_add(&sink.reshape((1, 1)).unwrap()).unwrap();
                }
                outputs.push(parts.broadcast_div(&sum).unwrap().matmul(&v).unwrap());
            }
            rows.push(Tensor::stack(&outputs, 1).unwrap());
            start += n;
        }
        Tensor::cat(&rows, 0).unwrap()
    }

    fn furthest(a: &Tensor, b: &Tensor) -> f64 {
        let off = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        off.max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn it_is_the_gradient_of_attention_laid_out() {
        // Lengths that make several rectangles, with padding in them.
        let lengths = [5, 7, 30, 33, 2];
        let n: usize = lengths.iter().sum();
        for (heads, kv, window, with_sinks) in
            [(4, 2, None, false), (4, 4, Some(6), true), (6, 2, Some(3), false), (3, 1, None, true)]
        {
            let q = Var::from_tensor(&values((n, heads, DIM), 1)).unwrap();
            let k = Var::from_tensor(&values((n, kv, DIM), 2)).unwrap();
            let v = Var::from_tensor(&values((n, kv, DIM), 3)).unwrap();
            let grad = values((n, heads, DIM), 4);
            let sinks = values((1, 1, heads), 5).flatten_all().unwrap();
            let sinks = with_sinks.then_some(sinks);
            let y = laid_out([&q, &k, &v], sinks.as_ref(), &lengths, window);
            let want = (y * &grad).unwrap().sum_all().unwrap().backward().unwrap();
            let frame = frame(&lengths, window);
            let rectangles = frame.rectangles(false).unwrap().to_vec();
            assert!(rectangles.len() > 2);
            let made = Made {
                q: q.as_detached_tensor(),
                k: k.as_detached_tensor(),
                v: v.as_detached_tensor(),
                sinks,
                rectangles,
                window,
            };
            let found = made.back(&grad, true).unwrap();
            for (found, of) in found.iter().zip([&q, &k, &v]) {
                let off = furthest(found.as_ref().unwrap(), want.get(of).unwrap());
                assert!(off < 1e-12, "{heads} heads, {kv} of keys: off by {off:e}");
            }
            let [dq, dk, dv] = made.back(&grad, false).unwrap();
            assert!(dq.is_none() && dk.is_none());
            assert!(furthest(&dv.unwrap(), want.get(&v).unwrap()) < 1e-12);
        }
    }
}

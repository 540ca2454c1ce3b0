//! The output head: logits, and the loss of a vocabulary that is never laid out whole.

use crate::custom_gradient::with_gradient;
use crate::layers::slices::{is_plain, with_values};
use crate::layers::weight::Weight;
use crate::load::Source;
use crate::placement::{Holding, Placement};
use crate::{ModelError, Result};
use candle_core::{D, DType, Device, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use uspx_kernel::exp_shifted;

/// Rows of logits worth a thread.
const ROWS: usize = 16;

/// Rows of the head that are multiplied, and read from their file, together.
const PANEL: usize = 8192;

/// The output head, `[vocab, hidden]`.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    /// As one tensor of floats; the embedding itself where they are tied.
    Whole(Tensor),
    /// Panel by panel, as stored.
    Panels(Vec<Weight>),
    /// In its file.
    InFile(Arc<Source>),
}

impl Head {
    /// As the placement of `source` asks. `embedding` is the embedding where it is held as floats.
    pub fn load(source: &Arc<Source>, embedding: Option<&Tensor>) -> Result<Self> {
        let vocab = source.config.vocab;
        let holding = source.placement.holding;
        if holding == Holding::Streamed {
            return Ok(Self::InFile(source.clone()));
        }
        if let Some(embedding) = embedding.filter(|_| source.config.tied) {
            return Ok(Self::Whole(embedding.clone()));
        }
        if holding != Holding::Floats {
            return Ok(Self::Panels(
                starts(vocab).map(|s| panel(source, s)).collect::<Result<_>>()?,
            ));
        }
        Ok(Self::Whole(source.head_rows(0..vocab)?.float()?))
    }

    /// As one tensor of floats.
    pub fn float(&self) -> Result<Tensor> {
        if let Self::Whole(head) = self {
            return Ok(head.clone());
        }
        let mut parts = Vec::new();
        self.each_panel(&mut |_, weight| {
            parts.push(weight.float()?);
            Ok(())
        })?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Some of its rows, as floats.
    pub fn part(&self, rows: Range<usize>) -> Result<Tensor> {
        match self {
            Self::Whole(head) => Ok(head.narrow(0, rows.start, rows.len())?),
            Self::Panels(_) => Ok(self.float()?.narrow(0, rows.start, rows.len())?),
            Self::InFile(source) => source.head_rows(rows)?.float(),
        }
    }

    fn each_panel(&self, f: &mut dyn FnMut(usize, &Weight) -> Result<()>) -> Result<()> {
        match self {
            Self::Whole(head) => f(0, &Weight::Float(head.clone())),
            Self::Panels(panels) => {
                (0..).step_by(PANEL).zip(panels).try_for_each(|(start, panel)| f(start, panel))
            }
            Self::InFile(source) => {
                source.checkpoint.will_need(source.head_name());
                starts(source.config.vocab).try_for_each(|start| {
                    source.meter.beat()?;
                    f(start, &panel(source, start)?)
                })
            }
        }
    }

    /// x·Wᵀ of normalised rows, `[rows, hidden]` to `[rows, vocab]`; differentiable.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let mut parts = Vec::new();
        self.each_panel(&mut |_, weight| {
            parts.push(weight.forward(x, None)?);
            Ok(())
        })?;
        match parts.as_slice() {
            [only] => Ok(only.clone()),
            _ => Ok(Tensor::cat(&parts, 1)?),
        }
    }

    /// Negative log-likelihood of one target per row, in nats, `[rows]`; differentiable. Only a
    /// panel of the logits is there at a time: their exponentials are summed as they come (Milakov
    /// & Gimelshein 2018), and made once more for the gradient.
    pub fn nll(&self, x: &Tensor, targets: &[u32]) -> Result<Tensor> {
        let fixed = x.detach();
        let mut sums = LogSum::new(targets);
        self.each_panel(&mut |start, weight| sums.add(start, &weight.forward(&fixed, None)?))?;
        let y = Tensor::from_vec(sums.nll(), targets.len(), x.device())?;
        if !x.track_op() {
            return Ok(y);
        }
        let (head, targets, sums) = (self.clone(), targets.to_vec(), sums.log_sums());
        let backward = move |x: &Tensor, _: &Tensor, grad: &Tensor| {
            head.nll_gradient(x, &targets, &sums, grad).map_err(ModelError::within_candle)
        };
        // The value must be of x's type.
        Ok(with_gradient("panelled-nll", x, y.to_dtype(x.dtype())?, backward)?)
    }

    /// Σ over panels of (softmax − one-hot)·W, each row times its gradient.
    fn nll_gradient(
        &self,
        x: &Tensor,
        targets: &[u32],
        sums: &[f32],
        grad: &Tensor,
    ) -> Result<Tensor> {
        let rows = targets.len();
        let sums = Tensor::from_slice(sums, (rows, 1), x.device())?;
        let grad = grad.to_dtype(DType::F32)?.reshape((rows, 1))?;
        let mut total = x.zeros_like()?;
        self.each_panel(&mut |start, weight| {
            let logits = weight.forward(x, None)?.to_dtype(DType::F32)?;
            let (places, minus) = hits(targets, start, logits.dim(1)?, x.device())?;
            let likely = logits.broadcast_sub(&sums)?.exp()?.scatter_add(&places, &minus, 1)?;
            let towards = likely.broadcast_mul(&grad)?.to_dtype(x.dtype())?;
            total = (&total + weight.pull_back(&towards)?)?;
            Ok(())
        })?;
        Ok(total)
    }
}

fn starts(vocab: usize) -> impl Iterator<Item = usize> {
    (0..vocab).step_by(PANEL)
}

fn panel(source: &Source, start: usize) -> Result<Weight> {
    source.head_rows(start..(start + PANEL).min(source.config.vocab))
}

/// Where each row's target is in a panel of `width` from `start`, and −1 there, or 0 where it is in
/// another panel: `[rows, 1]` both.
fn hits(targets: &[u32], start: usize, width: usize, device: &Device) -> Result<(Tensor, Tensor)> {
    let inside = |t: &u32| (*t as usize).checked_sub(start).filter(|at| *at < width);
    let places: Vec<u32> = targets.iter().map(|t| inside(t).unwrap_or(0) as u32).collect();
    let minus: Vec<f32> =
        targets.iter().map(|t| if inside(t).is_some() { -1.0 } else { 0.0 }).collect();
    let shape = (targets.len(), 1);
    Ok((Tensor::from_vec(places, shape, device)?, Tensor::from_vec(minus, shape, device)?))
}

/// log Σ exp of logits that come panel by panel, and the target's logit.
struct LogSum {
    targets: Vec<u32>,
    largest: Vec<f32>,
    sum: Vec<f64>,
    target: Vec<f32>,
}

impl LogSum {
    fn new(targets: &[u32]) -> Self {
        let rows = targets.len();
        let (largest, target) = (vec![f32::NEG_INFINITY; rows], vec![f32::NAN; rows]);
        Self { targets: targets.to_vec(), largest, sum: vec![0.0; rows], target }
    }

    fn add(&mut self, start: usize, logits: &Tensor) -> Result<()> {
        if is_plain(logits) {
            return self.add_plain(start, logits);
        }
        let logits = logits.to_dtype(DType::F32)?;
        let largest: Vec<f32> = logits.max(D::Minus1)?.to_vec1()?;
        let shift = Tensor::from_slice(&largest, (largest.len(), 1), logits.device())?;
        let sums: Vec<f32> = logits.broadcast_sub(&shift)?.exp()?.sum(D::Minus1)?.to_vec1()?;
        for ((own, sum), (new, new_sum)) in
            self.largest.iter_mut().zip(&mut self.sum).zip(largest.iter().zip(&sums))
        {
            let higher = own.max(*new);
            *sum = *sum * f64::from(*own - higher).exp()
                + f64::from(*new_sum) * f64::from(*new - higher).exp();
            *own = higher;
        }
        let (rows, width) = logits.dims2()?;
        let inside: Vec<Option<usize>> =
            self.targets.iter().map(|t| (*t as usize).checked_sub(start)).collect();
        let ids: Vec<u32> =
            inside.iter().map(|at| at.filter(|at| *at < width).unwrap_or(0) as u32).collect();
        let picked = logits.gather(&Tensor::from_vec(ids, (rows, 1), logits.device())?, 1)?;
        let picked: Vec<f32> = picked.flatten_all()?.to_vec1()?;
        for ((own, at), value) in self.target.iter_mut().zip(inside).zip(picked) {
            if at.is_some_and(|at| at < width) {
                *own = value;
            }
        }
        Ok(())
    }

    /// The same in one pass over each row.
    fn add_plain(&mut self, start: usize, logits: &Tensor) -> Result<()> {
        let width = logits.dim(1)?;
        let own = (&mut self.largest, &mut self.sum, &mut self.target, &self.targets);
        with_values(logits, |logits| {
            let rows = logits.par_chunks_exact(width.max(1)).zip(own.into_par_iter());
            rows.with_min_len(ROWS).for_each_init(Vec::new, |row, (logits, own)| {
                let (largest, sum, target, id) = own;
                let higher = logits.iter().copied().fold(*largest, f32::max);
                row.clear();
                row.extend_from_slice(logits);
                let new = f64::from(exp_shifted(row, higher));
                *sum = *sum * f64::from(*largest - higher).exp() + new;
                *largest = higher;
                if let Some(value) = (*id as usize).checked_sub(start).and_then(|at| logits.get(at))
                {
                    *target = *value;
                }
            });
        })?;
        Ok(())
    }

    fn log_sums(&self) -> Vec<f32> {
        self.largest.iter().zip(&self.sum).map(|(m, s)| m + s.ln() as f32).collect()
    }

    fn nll(&self) -> Vec<f32> {
        self.log_sums().iter().zip(&self.target).map(|(sum, target)| sum - target).collect()
    }
}

/// The embedding, `[vocab, hidden]`.
#[derive(Debug, Clone)]
pub(crate) enum Embedding {
    /// As one tensor of floats.
    Whole(Tensor),
    /// In its file, read row by row: a batch uses few of them.
    InFile(Arc<Source>),
}

impl Embedding {
    pub fn load(source: &Arc<Source>) -> Result<Self> {
        let Placement { holding, ref device, .. } = source.placement;
        // On a GPU, rows fetched one by one would wait for the bus each.
        let whole = holding == Holding::Floats || (holding == Holding::Stored && !device.is_cpu());
        if !whole {
            return Ok(Self::InFile(source.clone()));
        }
        Ok(Self::Whole(source.embedding_rows(0..source.config.vocab)?))
    }

    /// Rows of the embedding, `[N, hidden]`.
    pub fn rows(&self, ids: &[u32], device: &Device) -> Result<Tensor> {
        match self {
            Self::Whole(table) => {
                Ok(table.index_select(&Tensor::from_slice(ids, ids.len(), device)?, 0)?)
            }
            Self::InFile(source) => {
                let mut known: Vec<u32> = ids.to_vec();
                known.sort_unstable();
                known.dedup();
                let read = |id: &u32| source.embedding_rows(*id as usize..*id as usize + 1);
                let table = Tensor::cat(&known.iter().map(read).collect::<Result<Vec<_>>>()?, 0)?;
                let missing = || ModelError::Request("a token beyond the vocabulary".into());
                let place =
                    |id: &u32| known.binary_search(id).map(|at| at as u32).map_err(|_| missing());
                let places: Vec<u32> = ids.iter().map(place).collect::<Result<_>>()?;
                Ok(table.index_select(&Tensor::from_vec(places, ids.len(), device)?, 0)?)
            }
        }
    }

    /// Some of its rows, as floats.
    pub fn part(&self, rows: Range<usize>) -> Result<Tensor> {
        match self {
            Self::Whole(table) => Ok(table.narrow(0, rows.start, rows.len())?),
            Self::InFile(source) => source.embedding_rows(rows),
        }
    }

    /// As one tensor of floats.
    pub fn float(&self) -> Result<Cow<'_, Tensor>> {
        match self {
            Self::Whole(table) => Ok(Cow::Borrowed(table)),
            Self::InFile(source) => Ok(Cow::Owned(source.embedding_rows(0..source.config.vocab)?)),
        }
    }
}

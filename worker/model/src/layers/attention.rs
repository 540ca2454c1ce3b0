//! Grouped-query attention with a sliding window, learned sinks and a key-value cache.
//!
//! Tokens come ragged, `[N, hidden]`. On the CPU (`fused`) and on CUDA each sequence is attended to
//! by itself; where a tap asks for the probabilities, where something is differentiated in f64, and on
//! other devices, the batch is padded to rectangles of like lengths. On CUDA the gradient is made by such
//! rectangles, of some heads at a time (`attention_back`).

use crate::branch::{Asking, Branches};
use crate::custom_gradient::with_gradient;
use crate::custom_gradients::with_gradients;
use crate::layers::attention_back::{Made, spread};
use crate::layers::cache::LayerCache;
use crate::layers::frame::Frame;
use crate::layers::fused::{Heads, attend, attend_back, attend_onto};
use crate::layers::linear::Linear;
use crate::layers::norm::RmsNorm;
use crate::layers::relevance::given;
use crate::layers::rope::Angles;
use crate::layers::rows::pick_or_zero;
use crate::layers::slices::is_float;
use crate::taps::{Backward, NoTaps, Projection, Site, Taps, tap};
use crate::{ModelError, Result, cuda};
use candle_core::{D, DType, Tensor};

/// One layer's attention.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Query projection.
    pub q: Linear,
    /// Key projection.
    pub k: Linear,
    /// Value projection.
    pub v: Linear,
    /// Output projection.
    pub o: Linear,
    /// Norms of every head's query and key, before rotation.
    pub qk_norm: Option<(RmsNorm, RmsNorm)>,
    /// One logit per head that joins the softmax and is dropped after it, `[heads]`.
    pub sinks: Option<Tensor>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Sliding window, in tokens.
    pub window: Option<usize>,
}

impl Attention {
    /// The attention's contribution to the residual stream, `[N, hidden]`, from the normalised
    /// stream.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn forward(
        &self,
        layer: usize,
        x: &Tensor,
        frame: &Frame,
        cache: Option<&mut LayerCache>,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let x = tap(taps, Site::LinearInput { layer, projection: Projection::Q }, x.clone())?;
        let mixed = self.mixed(layer, &x, frame, cache, taps)?;
        self.out(layer, mixed, taps)
    }

    /// Its heads' outputs, `[N, heads, head_dim]`, from what its queries, keys and values are given.
    pub(crate) fn mixed(
        &self,
        layer: usize,
        x: &Tensor,
        frame: &Frame,
        cache: Option<&mut LayerCache>,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let weighed = given(x, taps.backward());
        let q = tap(taps, Site::Queries { layer }, self.queries(&weighed, frame.angles())?)?;
        let k = tap(taps, Site::Keys { layer }, self.keys(&weighed, frame.angles())?)?;
        let v = tap(taps, Site::Values { layer }, self.values(x)?)?;
        let all = [&q, &k, &v];
        let seen = taps.wants_pattern();
        let differentiated = all.iter().any(|x| x.track_op());
        let fused = !seen && all.into_iter().all(is_float) && !(differentiated && cache.is_some());
        if fused {
            self.each_sequence(all, frame, cache, differentiated)
        } else if !seen && cache.is_none() && cuda::attends(&q, self.kv_heads) {
            self.on_device(layer, all, frame, taps)
        } else {
            self.padded(layer, all, frame, cache, taps)
        }
    }

    /// The same of the rows that ask in a stack of branches, from the normalised stream at all its
    /// places and the trunk's keys and values: `[asking, hidden]`.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub(crate) fn branch(
        &self,
        layer: usize,
        x: &Tensor,
        (branches, asking, trunk): (&Branches, &Asking, [&Tensor; 2]),
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let (k, v) = (self.keys(x, &branches.all.angles)?, self.values(x)?);
        let q = match &asking.places {
            Some(places) => self.queries(&x.index_select(places, 0)?, &asking.angles)?,
            None => self.queries(x, &asking.angles)?,
        };
        let mixed = match &branches.frame {
            None => {
                let sinks = self.plain_sinks()?;
                attend_onto(self.shape(), &q, (trunk, [&k, &v]), sinks.as_deref(), asking)?
            }
            Some(frame) => {
                self.after_trunk(layer, [&q, &k, &v], (branches, asking, trunk), frame)?
            }
        };
        self.out(layer, mixed, taps)
    }

    /// Attention of a stack as one of a batch that begins with the trunk, whose rows do not ask.
    fn after_trunk(
        &self,
        layer: usize,
        [q, k, v]: [&Tensor; 3],
        (branches, asking, [trunk_k, trunk_v]): (&Branches, &Asking, [&Tensor; 2]),
        frame: &Frame,
    ) -> Result<Tensor> {
        let askers = branches.askers(asking)?;
        let askers = Tensor::from_slice(&askers, askers.len(), q.device())?;
        let q = pick_or_zero(&q.contiguous()?, 0, &askers)?;
        let (k, v) = (Tensor::cat(&[trunk_k, k], 0)?, Tensor::cat(&[trunk_v, v], 0)?);
        let all = [&q, &k, &v];
        let mixed = if cuda::attends(&q, self.kv_heads) {
            self.ragged(all, frame)?.narrow(0, branches.trunk(), frame.rows())?
        } else {
            self.padded(layer, all, frame, None, &mut NoTaps)?
        };
        match &asking.places {
            Some(places) => Ok(mixed.contiguous()?.index_select(places, 0)?),
            None => Ok(mixed),
        }
    }

    /// Differentiable, where every row is one sequence's alone.
    fn on_device(
        &self,
        layer: usize,
        all: [&Tensor; 3],
        frame: &Frame,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        if !all.iter().any(|x| x.track_op()) {
            return self.ragged(all, frame);
        }
        let rectangles = frame.rectangles(false)?.to_vec();
        if rectangles.iter().any(|rectangle| rectangle.own().is_none()) {
            return self.padded(layer, all, frame, None, taps);
        }
        let [q, k, v] = all.map(Tensor::detach);
        let mixed = self.ragged([&q, &k, &v], frame)?;
        let weights = all.iter().take(2).any(|x| x.track_op());
        let made = Made { q, k, v, sinks: self.sinks.clone(), rectangles, window: self.window };
        Ok(with_gradients("attention", all, mixed, move |grad| {
            made.back(grad, weights).map_err(ModelError::within_candle)
        })?)
    }

    fn ragged(&self, all: [&Tensor; 3], frame: &Frame) -> Result<Tensor> {
        let ragged = frame.ragged(self.heads / self.kv_heads, self.head_dim)?;
        let sinks = self.sinks.as_ref().map(|s| s.to_dtype(DType::F32)).transpose()?;
        Ok(cuda::attend(all, ragged, sinks.as_ref(), self.window)?)
    }

    /// What attention adds to the residual stream, from its heads' outputs `[N, heads, head_dim]`.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub(crate) fn out(&self, layer: usize, mixed: Tensor, taps: &mut dyn Taps) -> Result<Tensor> {
        let heads = tap(taps, Site::Z { layer }, mixed)?;
        let flat = heads.reshape(((), self.heads * self.head_dim))?;
        let flat = tap(taps, Site::LinearInput { layer, projection: Projection::O }, flat)?;
        self.o.forward(&flat)
    }

    /// Projected, normalised where the model does that, and rotated: `[N, heads, head_dim]`.
    fn turned(
        &self,
        map: &Linear,
        x: &Tensor,
        heads: usize,
        norm: Option<&RmsNorm>,
        angles: &Angles,
    ) -> Result<Tensor> {
        let y = map.forward(x)?.reshape(((), heads, self.head_dim))?;
        // Under relevance nothing of queries and keys is differentiated.
        let y = norm.map_or(Ok(y.clone()), |norm| norm.forward(&y, Backward::Gradient))?;
        angles.rotate(&y)
    }

    fn queries(&self, x: &Tensor, angles: &Angles) -> Result<Tensor> {
        let norm = self.qk_norm.as_ref().map(|norms| &norms.0);
        self.turned(&self.q, x, self.heads, norm, angles)
    }

    fn keys(&self, x: &Tensor, angles: &Angles) -> Result<Tensor> {
        let norm = self.qk_norm.as_ref().map(|norms| &norms.1);
        self.turned(&self.k, x, self.kv_heads, norm, angles)
    }

    fn values(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.v.forward(x)?.reshape(((), self.kv_heads, self.head_dim))?)
    }

    fn shape(&self) -> Heads {
        Heads { query: self.heads, kv: self.kv_heads, dim: self.head_dim, window: self.window }
    }

    fn plain_sinks(&self) -> Result<Option<Vec<f32>>> {
        let sinks = self.sinks.as_ref();
        Ok(sinks.map(|s| s.to_dtype(DType::F32)?.to_vec1::<f32>()).transpose()?)
    }

    /// Differentiable, if that is asked for, where there is no cache.
    fn each_sequence(
        &self,
        all: [&Tensor; 3],
        frame: &Frame,
        cache: Option<&mut LayerCache>,
        differentiated: bool,
    ) -> Result<Tensor> {
        let (shape, sinks) = (self.shape(), self.plain_sinks()?);
        let [q, k, v] = all.map(Tensor::detach);
        let mixed = attend(shape, [&q, &k, &v], sinks.as_deref(), frame.spans(), cache)?;
        if !differentiated {
            return Ok(mixed);
        }
        let spans = frame.spans().to_vec();
        let weights = all.iter().take(2).any(|x| x.track_op());
        Ok(with_gradients("attention", all, mixed, move |grad| {
            let found = attend_back(shape, [&q, &k, &v], sinks.as_deref(), &spans, (grad, weights));
            found.map_err(ModelError::within_candle)
        })?)
    }

    fn padded(
        &self,
        layer: usize,
        [q, k, v]: [&Tensor; 3],
        frame: &Frame,
        cache: Option<&mut LayerCache>,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let by_head = |x: &Tensor| -> Result<Tensor> { Ok(x.transpose(0, 1)?.contiguous()?) };
        let (q, k, v) = (by_head(q)?, by_head(k)?, by_head(v)?);
        let mut cache = cache;
        let mut parts = Vec::new();
        for rectangle in frame.rectangles(taps.wants_pattern() || cache.is_some())? {
            let (q, mut k, mut v) = (rectangle.pad(&q)?, rectangle.pad(&k)?, rectangle.pad(&v)?);
            if let Some(cache) = cache.as_deref_mut() {
                (k, v) = cache.extend_padded(k, v)?;
            }
            let weights = self.weights(&q, &k, rectangle.bias(self.window)?)?;
            let weights = tap(taps, Site::Pattern { layer }, weights)?;
            parts.push(rectangle.unpad(&weights.matmul(&spread(&v, self.heads)?)?)?);
        }
        Ok(Tensor::cat(&parts, 1)?.transpose(0, 1)?.contiguous()?)
    }

    /// Attention probabilities, `[heads, B, T, keys]`.
    fn weights(&self, q: &Tensor, k: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        let scores = ((q * scale)?.matmul(&spread(k, self.heads)?.transpose(2, 3)?.contiguous()?))?;
        let scores = scores.broadcast_add(bias)?;
        let Some(sinks) = &self.sinks else { return softmax(&scores) };
        let (heads, b, t, keys) = scores.dims4()?;
        if sinks.dims() != [heads] {
            return Err(ModelError::Request(format!(
                "{heads} heads, but sinks of shape {:?}",
                sinks.dims()
            )));
        }
        let sinks =
            sinks.reshape((heads, 1, 1, 1))?.broadcast_as((heads, b, t, 1))?.contiguous()?;
        let joined = softmax(&Tensor::cat(&[&scores, &sinks], D::Minus1)?)?;
        Ok(joined.narrow(D::Minus1, 0, keys)?.contiguous()?)
    }
}

/// Softmax over the last dimension, fused and differentiable.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let y = candle_nn::ops::softmax_last_dim(&x.detach().contiguous()?)?;
    Ok(with_gradient("softmax", x, y, |_, y, grad| {
        let (dtype, weighted) = (y.dtype(), (grad * y)?);
        // A sum of 16-bit floats would lose most of its bits.
        let summed =
            if dtype == DType::BF16 { weighted.to_dtype(DType::F32)? } else { weighted.clone() };
        let along = summed.sum_keepdim(D::Minus1)?.to_dtype(dtype)?;
        weighted - y.broadcast_mul(&along)?
    })?)
}

//! The transformer: embedding, blocks, norm and head, each callable on its own so that a probe can
//! start anywhere.

mod layer;
mod parts;
mod vectors;

pub use layer::Layer;

use crate::batch::Batch;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::head::{Embedding, Head};
use crate::layers::adapter::Adapter;
use crate::layers::block::Block;
use crate::layers::cache::KvCache;
use crate::layers::frame::Frame;
use crate::layers::norm::RmsNorm;
use crate::layers::rope::Rotary;
use crate::load::Source;
use crate::loss::token_nll;
use crate::passes::{Meter, Passes, Watch};
use crate::placement::{Holding, Placement};
use crate::taps::{Backward, Projection, Taps};
use crate::{ModelError, Result, Spool, cuda};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A transformer, its weights in memory or in their file.
#[derive(Debug, Clone)]
pub struct Transformer {
    config: ModelConfig,
    embedding: Embedding,
    blocks: Blocks,
    norm: RmsNorm,
    head: Head,
    rotary: Rotary,
    dtype: DType,
    device: Device,
    holding: Holding,
    boundaries: usize,
    meter: Meter,
}

/// Where blocks come from.
#[derive(Debug, Clone)]
enum Blocks {
    /// Memory.
    Held(Vec<Block>),
    /// Their file, one at a time, and what joins their linear maps when they are read.
    InFile(Arc<Source>, BTreeMap<(usize, Projection), Adapter>),
}

/// Logits are made for at most this many values at a time, so that a large vocabulary does not fill
/// the memory.
const LOGIT_VALUES: usize = 1 << 25;

impl Transformer {
    /// Opens a model as `placement` says.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape than the configuration says, or holds what is
    /// not a finite number. What is streamed is checked when it is read.
    pub fn load(config: ModelConfig, checkpoint: Checkpoint, placement: Placement) -> Result<Self> {
        let source = Arc::new(Source::new(checkpoint, config, placement)?);
        let Placement { dtype, ref device, holding, boundaries } = source.placement;
        cuda::keep_freed_memory(device);
        uspx_kernel::keep_freed_memory();
        let config = source.config.clone();
        let embedding = Embedding::load(&source)?;
        let floats = if let Embedding::Whole(table) = &embedding { Some(table) } else { None };
        let blocks = match holding {
            Holding::Streamed => Blocks::InFile(source.clone(), BTreeMap::new()),
            _ => Blocks::Held(
                (0..config.windows.len())
                    .map(|layer| source.block(layer))
                    .collect::<Result<_>>()?,
            ),
        };
        Ok(Self {
            head: Head::load(&source, floats)?,
            norm: source.norm("model.norm", config.hidden)?,
            rotary: Rotary::new(&config.rope, config.head_dim),
            embedding,
            blocks,
            dtype,
            device: device.clone(),
            holding,
            boundaries,
            meter: source.meter.clone(),
            config,
        })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How weights are held.
    pub fn holding(&self) -> Holding {
        self.holding
    }

    /// Whether weights stay in their file.
    pub fn is_streamed(&self) -> bool {
        matches!(self.blocks, Blocks::InFile(..))
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.config.windows.len()
    }

    /// What has run so far, on this model and its clones.
    pub fn passes(&self) -> Passes {
        self.meter.read()
    }

    /// Follows what runs on this model and its clones, from another thread.
    pub fn watch(&self) -> Watch {
        Watch::of(&self.meter)
    }

    /// A block: the one in memory, or read from the file, while the next one is asked for.
    ///
    /// # Errors
    /// A layer that the model lacks or that cannot be read.
    pub fn block(&self, layer: usize) -> Result<Cow<'_, Block>> {
        match &self.blocks {
            Blocks::Held(blocks) => {
                blocks.get(layer).map(Cow::Borrowed).ok_or_else(|| no_layer(layer))
            }
            Blocks::InFile(source, adapters) => {
                let next = (layer + 1) % self.layers();
                source.checkpoint.will_need(&format!("model.layers.{next}."));
                let mut block = source.block(layer)?;
                for ((_, projection), adapter) in
                    adapters.range((layer, Projection::Q)..=(layer, Projection::Down))
                {
                    if let Some(linear) = block.linear_mut(*projection) {
                        linear.adapter = Some(adapter.clone());
                    }
                }
                Ok(Cow::Owned(block))
            }
        }
    }

    /// The blocks in memory, to read weights.
    ///
    /// # Errors
    /// A streamed model.
    pub fn blocks(&self) -> Result<&[Block]> {
        match &self.blocks {
            Blocks::Held(blocks) => Ok(blocks),
            Blocks::InFile(..) => Err(streamed()),
        }
    }

    /// Frame of whole sequences.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn frame(&self, batch: &Batch) -> Result<Frame> {
        Frame::whole(batch, &self.config.windows, &self.rotary, (self.dtype, &self.device))
    }

    /// Frame of a decoding step; see [`Frame::step`].
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn step_frame(&self, positions: &[u32], seen: &[Vec<Option<u32>>]) -> Result<Frame> {
        Frame::step(positions, seen, &self.config.windows, &self.rotary, (self.dtype, &self.device))
    }

    /// Embeds tokens: `[N]` to `[N, hidden]`.
    ///
    /// # Errors
    /// A token beyond the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.config.vocab) {
            let reason = format!(
                "token {id} is beyond the vocabulary of {}: tokenizer and model differ",
                self.config.vocab
            );
            return Err(ModelError::Request(reason));
        }
        self.embedding.rows(ids, &self.device)
    }

    /// Runs a range of layers on the residual stream x, `[N, hidden]`.
    ///
    /// `caches`, if given, are of this model: see [`Self::kv_cache`].
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn run(
        &self,
        layers: Range<usize>,
        mut x: Tensor,
        frame: &Frame,
        mut caches: Option<&mut KvCache>,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        for layer in layers {
            let block = self.block(layer)?;
            let cache = caches.as_deref_mut().map(|c| c.open(layer)).transpose()?;
            x = block.attend(layer, x, frame, cache, taps)?;
            caches.as_deref_mut().map(|c| c.close(layer)).transpose()?;
            x = block.feed(layer, x, taps)?;
            self.meter.forward(frame.spans().len());
            self.meter.beat()?;
        }
        Ok(x)
    }

    /// Embedding and all layers: the residual stream after the last, `[N, hidden]`.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn forward(&self, batch: &Batch, frame: &Frame, taps: &mut dyn Taps) -> Result<Tensor> {
        self.run(0..self.layers(), self.embed(&batch.ids)?, frame, None, taps)
    }

    /// An empty keep for residual streams at layer boundaries, of the size that this model was
    /// opened with.
    pub fn spool(&self) -> Spool {
        Spool::new(self.boundaries)
    }

    /// Some of them, which share that size.
    pub fn spools<const N: usize>(&self) -> [Spool; N] {
        [(); N].map(|()| Spool::new(self.boundaries / N))
    }

    /// Bytes that are kept in memory at layer boundaries.
    pub fn boundaries(&self) -> usize {
        self.boundaries
    }

    /// From now on keeps at most so many bytes at layer boundaries in memory.
    pub fn set_boundaries(&mut self, bytes: usize) {
        self.boundaries = bytes;
    }

    /// Empty key-value caches for this model, kept in memory as far as residual streams would be.
    pub fn kv_cache(&self) -> KvCache {
        KvCache::new(self.layers(), self.boundaries)
    }

    /// The backward pass layer by layer, from x, the residual stream after the last layer, down to
    /// the first.
    ///
    /// `loss` gives the loss of x. Each layer runs once more, from its input in `boundaries`, with
    /// the taps that `tapped` makes for it from the gradient with respect to its output; its
    /// gradients, those of the taps' variables among them, go to `found`. So at any time one
    /// layer's activations are there, and of a streamed model one layer's weights (Chen et al.
    /// 2016, arXiv 1604.06174).
    ///
    /// # Errors
    /// Those of the tensor library, the taps and the callbacks.
    pub fn backward<T: Taps>(
        &self,
        (x, frame, boundaries): (&Tensor, &Frame, &Spool),
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
        tapped: impl FnMut(&Tensor) -> Result<T>,
        found: impl FnMut(&T, &GradStore) -> Result<()>,
    ) -> Result<()> {
        let end = Var::from_tensor(&x.detach())?;
        let gradient = loss(end.as_tensor())?.backward()?.remove(&end).ok_or_else(lost)?;
        self.backward_from(gradient, (frame, boundaries), tapped, found)
    }

    /// The same from `gradient`, that of the loss with respect to the residual stream after the last layer, on.
    ///
    /// # Errors
    /// As [`Self::backward`].
    pub fn backward_from<T: Taps>(
        &self,
        mut gradient: Tensor,
        (frame, boundaries): (&Frame, &Spool),
        mut tapped: impl FnMut(&Tensor) -> Result<T>,
        mut found: impl FnMut(&T, &GradStore) -> Result<()>,
    ) -> Result<()> {
        for layer in (0..self.layers()).rev() {
            let input = Var::from_tensor(&boundaries.get(layer)?)?;
            let mut taps = tapped(&gradient.detach())?;
            let out =
                self.run(layer..layer + 1, input.as_tensor().clone(), frame, None, &mut taps)?;
            let mut gradients = (out * gradient.detach())?.sum_all()?.backward()?;
            self.meter.backward(frame.spans().len());
            found(&taps, &gradients)?;
            gradient = gradients.remove(&input).ok_or_else(lost)?;
        }
        Ok(())
    }

    /// Logits of some rows of the residual stream: `[rows, vocab]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn logits(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor> {
        self.head.logits(&self.normed(x, rows, Backward::Gradient)?)
    }

    fn normed(&self, x: &Tensor, rows: &[u32], back: Backward) -> Result<Tensor> {
        let rows = Tensor::from_slice(rows, rows.len(), &self.device)?;
        self.norm.forward(&x.index_select(&rows, 0)?, back)
    }

    /// Negative log-likelihood of every response token from the last layer's residual stream x, in
    /// nats: `[rows]`, differentiable.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn response_nll(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        self.nll(x, &batch.predicting, &batch.targets)
    }

    /// The same, with what the last norm carries back.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn response_nll_by(&self, back: Backward, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        self.nll_by(back, x, &batch.predicting, &batch.targets)
    }

    /// Negative log-likelihood of a target for each of some rows of the last layer's residual
    /// stream x, in nats: `[rows]`, differentiable.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn nll(&self, x: &Tensor, rows: &[u32], targets: &[u32]) -> Result<Tensor> {
        self.nll_by(Backward::Gradient, x, rows, targets)
    }

    fn nll_by(&self, back: Backward, x: &Tensor, rows: &[u32], targets: &[u32]) -> Result<Tensor> {
        if targets.is_empty() {
            return Ok(Tensor::zeros(0, DType::F32, &self.device)?);
        }
        if !matches!(self.head, Head::Whole(_)) {
            return self.head.nll(&self.normed(x, rows, back)?, targets);
        }
        let mut parts = Vec::new();
        for part in self.chunks(rows.len()) {
            let targets = targets.get(part.clone()).unwrap_or_default();
            let rows = rows.get(part).unwrap_or_default();
            let logits = self.head.logits(&self.normed(x, rows, back)?)?;
            parts.push(token_nll(&logits, targets)?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The predicting rows of a batch in pieces whose logits fit in memory.
    pub fn logit_chunks(&self, batch: &Batch) -> impl Iterator<Item = Range<usize>> + use<> {
        self.chunks(batch.predicting.len())
    }

    fn chunks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = (LOGIT_VALUES / self.config.vocab).max(1);
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }
}

fn lost() -> ModelError {
    ModelError::Request("a gradient was lost between two layers: this is a bug in a layer".into())
}

fn no_layer(layer: usize) -> ModelError {
    ModelError::Request(format!("the model has no layer {layer}"))
}

fn streamed() -> ModelError {
    ModelError::Request(
        "a streamed model's weights can neither be listed nor changed: load it into memory".into(),
    )
}

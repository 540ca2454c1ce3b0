//! The transformer: embedding, blocks, norm and head, each callable on its own so that a probe can start anywhere.

use crate::batch::{Batch, Frame};
use crate::checkpoint::Checkpoint;
use crate::config::{Mlp, ModelConfig, Quantisation};
use crate::layers::attention::{Attention, LayerCache};
use crate::layers::linear::{Linear, frozen_matmul};
use crate::layers::mlp::DenseMlp;
use crate::layers::moe::Experts;
use crate::layers::norm::RmsNorm;
use crate::layers::rope::Rotary;
use crate::taps::{Projection, Site, Taps, tap};
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;

/// One block: attention, then an MLP or experts, each on the normalised stream and added to it.
#[derive(Debug, Clone)]
pub struct Block {
    /// Norm before attention.
    pub attention_norm: RmsNorm,
    /// Attention.
    pub attention: Attention,
    /// Norm before the MLP.
    pub mlp_norm: RmsNorm,
    /// What follows attention.
    pub feed_forward: FeedForward,
}

/// A block's second half.
#[derive(Debug, Clone)]
pub enum FeedForward {
    /// One MLP.
    Dense(DenseMlp),
    /// A mixture of experts.
    Experts(Experts),
}

/// A transformer with its weights in memory.
#[derive(Debug, Clone)]
pub struct Transformer {
    config: ModelConfig,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Tensor,
    rotary: Rotary,
    dtype: DType,
    device: Device,
}

/// Reads tensors of one prefix.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    dtype: DType,
    device: &'a Device,
}

impl Reader<'_> {
    fn float(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.checkpoint.float(name, shape, self.dtype, self.device)
    }

    fn linear(&self, path: &str, out: usize, into: usize, bias: bool) -> Result<Linear> {
        let weight = self.float(&format!("{path}.weight"), &[out, into])?;
        let bias = bias.then(|| self.float(&format!("{path}.bias"), &[out])).transpose()?;
        Ok(Linear::new(weight, bias))
    }

    fn norm(&self, path: &str) -> Result<RmsNorm> {
        Ok(RmsNorm::new(self.float(&format!("{path}.weight"), &[self.config.hidden])?, self.config.norm_eps))
    }

    fn block(&self, layer: usize, window: Option<usize>) -> Result<Block> {
        let at = format!("model.layers.{layer}");
        let feed_forward = match self.config.mlp {
            Mlp::Dense { inner } => FeedForward::Dense(self.dense(layer, inner)?),
            Mlp::Experts { .. } => FeedForward::Experts(self.experts(&format!("{at}.mlp"))?),
        };
        Ok(Block {
            attention_norm: self.norm(&format!("{at}.input_layernorm"))?,
            attention: self.attention(layer, window)?,
            mlp_norm: self.norm(&format!("{at}.post_attention_layernorm"))?,
            feed_forward,
        })
    }

    fn attention(&self, layer: usize, window: Option<usize>) -> Result<Attention> {
        let c = self.config;
        let (query, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let map = |p: Projection, out, into| self.linear(&p.path(layer), out, into, c.attention_bias);
        let sinks = || self.float(&format!("model.layers.{layer}.self_attn.sinks"), &[c.heads]);
        Ok(Attention {
            q: map(Projection::Q, query, c.hidden)?,
            k: map(Projection::K, kv, c.hidden)?,
            v: map(Projection::V, kv, c.hidden)?,
            o: map(Projection::O, c.hidden, query)?,
            sinks: c.sinks.then(sinks).transpose()?,
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            window,
        })
    }

    fn dense(&self, layer: usize, inner: usize) -> Result<DenseMlp> {
        let hidden = self.config.hidden;
        Ok(DenseMlp {
            gate: self.linear(&Projection::Gate.path(layer), inner, hidden, false)?,
            up: self.linear(&Projection::Up.path(layer), inner, hidden, false)?,
            down: self.linear(&Projection::Down.path(layer), hidden, inner, false)?,
        })
    }

    fn experts(&self, at: &str) -> Result<Experts> {
        let Mlp::Experts { experts, top_k, inner, limit } = self.config.mlp else {
            return Err(ModelError::Config("experts asked of a dense model".into()));
        };
        let hidden = self.config.hidden;
        let gate_up = self.expert_weight(&format!("{at}.experts.gate_up_proj"), (experts, 2 * inner, hidden))?;
        let gate_up_bias = self.float(&format!("{at}.experts.gate_up_proj_bias"), &[experts, 2 * inner])?;
        let down = self.expert_weight(&format!("{at}.experts.down_proj"), (experts, hidden, inner))?;
        let down_bias = self.float(&format!("{at}.experts.down_proj_bias"), &[experts, hidden])?;
        let mut parts = (Vec::new(), Vec::new(), Vec::new());
        for e in 0..experts {
            // Gate and up rows alternate on disk; apart, each is one product.
            let weight = gate_up.get(e)?.reshape((inner, 2, hidden))?;
            let bias = gate_up_bias.get(e)?.reshape((inner, 2))?;
            let half = |i: usize| -> Result<(Tensor, Tensor)> {
                Ok((
                    weight.narrow(1, i, 1)?.squeeze(1)?.force_contiguous()?,
                    bias.narrow(1, i, 1)?.squeeze(1)?.force_contiguous()?,
                ))
            };
            parts.0.push(half(0)?);
            parts.1.push(half(1)?);
            parts.2.push((down.get(e)?.force_contiguous()?, down_bias.get(e)?.force_contiguous()?));
        }
        let router = self.linear(&format!("{at}.router"), experts, hidden, true)?;
        Ok(Experts { router, gate: parts.0, up: parts.1, down: parts.2, top_k, limit })
    }

    /// `[experts, out, in]`, from MXFP4 blocks or from floats stored `[experts, in, out]`.
    fn expert_weight(&self, name: &str, (experts, out, into): (usize, usize, usize)) -> Result<Tensor> {
        if self.config.quantisation == Quantisation::Mxfp4 {
            return self.checkpoint.mxfp4(name, (experts, out, into), self.dtype, self.device);
        }
        Ok(self.float(name, &[experts, into, out])?.transpose(1, 2)?.contiguous()?)
    }
}

impl Transformer {
    /// Reads all weights.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape than the configuration says.
    pub fn load(config: ModelConfig, checkpoint: &Checkpoint, dtype: DType, device: &Device) -> Result<Self> {
        let reader = Reader { checkpoint, config: &config, dtype, device };
        let embedding = reader.float("model.embed_tokens.weight", &[config.vocab, config.hidden])?;
        let head = match config.tied {
            true => embedding.clone(),
            false => reader.float("lm_head.weight", &[config.vocab, config.hidden])?,
        };
        let block = |(layer, window): (usize, &Option<usize>)| reader.block(layer, *window);
        let blocks = config.windows.iter().enumerate().map(block).collect::<Result<_>>()?;
        let norm = reader.norm("model.norm")?;
        let rotary = Rotary::new(&config.rope, config.head_dim);
        Ok(Self { embedding, blocks, norm, head, rotary, dtype, device: device.clone(), config })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// The blocks, to read or to change weights.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Frame of whole sequences.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn frame(&self, batch: &Batch) -> Result<Frame> {
        Frame::whole(&batch.lengths, &self.config.windows, &self.rotary, (self.dtype, &self.device))
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
            let reason =
                format!("token {id} is beyond the vocabulary of {}: tokenizer and model differ", self.config.vocab);
            return Err(ModelError::Request(reason));
        }
        let ids = Tensor::from_slice(ids, ids.len(), &self.device)?;
        Ok(self.embedding.index_select(&ids, 0)?)
    }

    /// Runs a range of layers on the residual stream x, `[N, hidden]`.
    ///
    /// `caches`, if given, has one entry per layer of the model.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn run(
        &self,
        layers: Range<usize>,
        mut x: Tensor,
        frame: &Frame,
        mut caches: Option<&mut [LayerCache]>,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        for (layer, block) in self.blocks.iter().enumerate().take(layers.end).skip(layers.start) {
            let cache = caches.as_deref_mut().and_then(|c| c.get_mut(layer));
            x = block.attend(layer, x, frame, cache, taps)?;
            x = block.feed(layer, x, taps)?;
        }
        Ok(x)
    }

    /// Runs from the middle of `layer` (after its attention) to the end: what an expert's removal changes.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn run_from_middle(&self, layer: usize, x: Tensor, frame: &Frame, taps: &mut dyn Taps) -> Result<Tensor> {
        let missing = || ModelError::Request(format!("the model has no layer {layer}"));
        let x = self.blocks.get(layer).ok_or_else(missing)?.feed(layer, x, taps)?;
        self.run(layer + 1..self.layers(), x, frame, None, taps)
    }

    /// Embedding and all layers: the residual stream after the last, `[N, hidden]`.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps.
    pub fn forward(&self, batch: &Batch, frame: &Frame, taps: &mut dyn Taps) -> Result<Tensor> {
        self.run(0..self.layers(), self.embed(&batch.ids)?, frame, None, taps)
    }

    /// Logits of some rows of the residual stream: `[rows, vocab]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn logits(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let rows = Tensor::from_slice(rows, rows.len(), &self.device)?;
        frozen_matmul(&self.norm.forward(&x.index_select(&rows, 0)?)?, &self.head)
    }

    /// The linear map at a place, in a dense model (experts hold their own).
    ///
    /// # Errors
    /// The model has no such map.
    pub fn linear(&self, layer: usize, projection: Projection) -> Result<&Linear> {
        let block = self.blocks.get(layer);
        block.and_then(|b| b.linear(projection)).ok_or_else(|| no_linear(layer, projection))
    }

    /// The same, to change.
    ///
    /// # Errors
    /// The model has no such map.
    pub fn linear_mut(&mut self, layer: usize, projection: Projection) -> Result<&mut Linear> {
        let block = self.blocks.get_mut(layer);
        block.and_then(|b| b.linear_mut(projection)).ok_or_else(|| no_linear(layer, projection))
    }

    /// Embedding `[vocab, hidden]`.
    pub fn embedding(&self) -> &Tensor {
        &self.embedding
    }

    /// Output head `[vocab, hidden]`; the embedding itself where they are tied.
    pub fn head(&self) -> &Tensor {
        &self.head
    }

    /// Final norm.
    pub fn norm(&self) -> &RmsNorm {
        &self.norm
    }
}

fn no_linear(layer: usize, projection: Projection) -> ModelError {
    ModelError::Request(format!("the model has no linear map {}", projection.path(layer)))
}

impl Block {
    fn attend(
        &self,
        layer: usize,
        x: Tensor,
        frame: &Frame,
        cache: Option<&mut LayerCache>,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let x = tap(taps, Site::Residual { layer }, x)?;
        let normed = self.attention_norm.forward(&x)?;
        Ok((&x + self.attention.forward(layer, &normed, frame, cache, taps)?)?)
    }

    fn feed(&self, layer: usize, x: Tensor, taps: &mut dyn Taps) -> Result<Tensor> {
        let x = tap(taps, Site::Middle { layer }, x)?;
        let normed = self.mlp_norm.forward(&x)?;
        let out = match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.forward(layer, &normed, taps)?,
            FeedForward::Experts(experts) => experts.forward(layer, &normed, taps)?,
        };
        let out = tap(taps, Site::MlpOut { layer }, out)?;
        Ok((&x + out)?)
    }

    fn linear(&self, projection: Projection) -> Option<&Linear> {
        let attention = &self.attention;
        let dense = match &self.feed_forward {
            FeedForward::Dense(mlp) => Some(mlp),
            FeedForward::Experts(_) => None,
        };
        match projection {
            Projection::Q => Some(&attention.q),
            Projection::K => Some(&attention.k),
            Projection::V => Some(&attention.v),
            Projection::O => Some(&attention.o),
            Projection::Gate => dense.map(|m| &m.gate),
            Projection::Up => dense.map(|m| &m.up),
            Projection::Down => dense.map(|m| &m.down),
        }
    }

    fn linear_mut(&mut self, projection: Projection) -> Option<&mut Linear> {
        let attention = &mut self.attention;
        let dense = match &mut self.feed_forward {
            FeedForward::Dense(mlp) => Some(mlp),
            FeedForward::Experts(_) => None,
        };
        match projection {
            Projection::Q => Some(&mut attention.q),
            Projection::K => Some(&mut attention.k),
            Projection::V => Some(&mut attention.v),
            Projection::O => Some(&mut attention.o),
            Projection::Gate => dense.map(|m| &mut m.gate),
            Projection::Up => dense.map(|m| &mut m.up),
            Projection::Down => dense.map(|m| &mut m.down),
        }
    }
}

//! From a checkpoint's tensors to blocks: which tensor goes where.

use crate::checkpoint::{Checkpoint, Form, Stacked};
use crate::config::{GatedUnit, Mixture, Mlp, ModelConfig, Quantisation};
use crate::cuts::BANNED;
use crate::layers::attention::Attention;
use crate::layers::block::{Block, FeedForward};
use crate::layers::linear::Linear;
use crate::layers::mlp::DenseMlp;
use crate::layers::moe::{Expert, ExpertSource, Experts, FirstMaps};
use crate::layers::norm::RmsNorm;
use crate::layers::weight::Weight;
use crate::names::{EMBEDDING, ExpertNames, HEAD};
use crate::passes::Meter;
use crate::placement::{Holding, Placement};
use crate::taps::Projection;
use crate::{ModelError, Result, inventory};
use candle_core::{DType, Device, Tensor};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// A checkpoint, and what is to become of it.
#[derive(Debug)]
pub(crate) struct Source {
    pub checkpoint: Checkpoint,
    pub config: ModelConfig,
    pub placement: Placement,
    /// Told of what is read.
    pub meter: Meter,
}

impl Source {
    /// Checks `config` against what is stored. A head of its own wins over a configuration that
    /// ties it, as in transformers, unless it holds the embedding's values.
    ///
    /// # Errors
    /// Numbers that are not the tensors', or weights stored otherwise than `quantization_config`
    /// says.
    pub fn new(
        checkpoint: Checkpoint,
        mut config: ModelConfig,
        placement: Placement,
    ) -> Result<Self> {
        let multiplied = match &placement.device {
            Device::Cpu => placement.dtype == DType::F32,
            device => device.is_cuda(),
        };
        if placement.holding == Holding::Nf4 && !multiplied {
            let reason = "NF4 is multiplied on the CPU in f32 and on CUDA: give --device cpu without --dtype, or --device cuda:0";
            return Err(ModelError::Request(reason.into()));
        }
        checkpoint.named(inventory::check_dimensions(&config, &checkpoint))?;
        checkpoint.named(inventory::check_quantisation(&config, &checkpoint))?;
        config.tied = checkpoint.named(inventory::is_tied(&config, &checkpoint))?;
        Ok(Self { checkpoint, config, placement, meter: Meter::default() })
    }

    fn on(&self) -> (DType, &Device) {
        (self.placement.dtype, &self.placement.device)
    }

    /// Whether weights are multiplied as they are stored.
    fn packed(&self) -> bool {
        let Placement { dtype, device, holding, .. } = &self.placement;
        *holding != Holding::Floats && device.is_cpu() && *dtype == DType::F32
    }

    /// Whether MXFP4 stays as it is on a GPU that has kernels for it.
    fn on_cuda(&self) -> bool {
        self.placement.holding != Holding::Floats && self.placement.device.is_cuda()
    }

    pub fn float(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (dtype, device) = self.on();
        self.checkpoint.named(self.checkpoint.float(name, shape, dtype, device))
    }

    /// Rows of the embedding, as floats.
    pub fn embedding_rows(&self, range: Range<usize>) -> Result<Tensor> {
        let (dtype, device) = self.on();
        let shape = [self.config.vocab, self.config.hidden];
        self.checkpoint.named(self.checkpoint.float_part(
            self.embedding_name(),
            &shape,
            range,
            dtype,
            device,
        ))
    }

    /// The name of the embedding. Where the two are tied, a file may have it under the head's name
    /// alone.
    fn embedding_name(&self) -> &'static str {
        if self.config.tied && !self.checkpoint.has(EMBEDDING) { HEAD } else { EMBEDDING }
    }

    /// The name of the output head.
    pub fn head_name(&self) -> &'static str {
        if self.config.tied { self.embedding_name() } else { HEAD }
    }

    /// Rows of the output head. Beside layers in NF4 on a GPU it stays as small as it is stored.
    pub fn head_rows(&self, range: Range<usize>) -> Result<Weight> {
        let shape = [self.config.vocab, self.config.hidden];
        let ((dtype, device), name) = (self.on(), self.head_name());
        let small = self.placement.holding == Holding::Nf4
            && device.is_cuda()
            && self.checkpoint.type_name(name).as_deref() == Some("bf16");
        let on = (if small { DType::BF16 } else { dtype }, device);
        self.checkpoint.named(self.checkpoint.weight(name, &shape, range, self.packed(), on))
    }

    fn weight(&self, name: &str, out: usize, into: usize) -> Result<Weight> {
        self.checkpoint.named(self.checkpoint.weight(
            name,
            &[out, into],
            0..out,
            self.packed(),
            self.on(),
        ))
    }

    fn linear(&self, path: &str, out: usize, into: usize, bias: bool) -> Result<Linear> {
        let bias = bias.then(|| self.float(&format!("{path}.bias"), &[out])).transpose()?;
        let name = format!("{path}.weight");
        let weight = match self.placement.holding {
            Holding::Nf4 => self.nf4(&name, (out, into))?,
            _ => self.weight(&name, out, into)?,
        };
        Ok(Linear::new(weight, bias))
    }

    /// A weight that is quantised as it is read, which takes its time.
    fn nf4(&self, name: &str, dims: (usize, usize)) -> Result<Weight> {
        self.meter.beat()?;
        self.checkpoint.named(self.checkpoint.nf4(name, dims, &self.placement.device))
    }

    /// A norm over `width` values.
    pub fn norm(&self, path: &str, width: usize) -> Result<RmsNorm> {
        Ok(RmsNorm::new(self.float(&format!("{path}.weight"), &[width])?, self.config.norm_eps))
    }

    /// One layer. Its experts come with it, or are read one at a time where the model is streamed.
    pub fn block(self: &Arc<Self>, layer: usize) -> Result<Block> {
        let missing = || ModelError::Request(format!("the model has no layer {layer}"));
        let (window, mlp) =
            self.config.windows.get(layer).zip(self.config.mlps.get(layer)).ok_or_else(missing)?;
        let at = format!("model.layers.{layer}");
        let feed_forward = match *mlp {
            Mlp::Dense { inner } => FeedForward::Dense(Box::new(self.dense(layer, inner)?)),
            Mlp::Experts(mixture) => FeedForward::Experts(Arc::new(self.experts(layer, mixture)?)),
        };
        Ok(Block {
            attention_norm: self.norm(&format!("{at}.input_layernorm"), self.config.hidden)?,
            attention: self.attention(layer, *window)?,
            mlp_norm: self.norm(&format!("{at}.post_attention_layernorm"), self.config.hidden)?,
            feed_forward,
        })
    }

    fn attention(&self, layer: usize, window: Option<usize>) -> Result<Attention> {
        let c = &self.config;
        let (query, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let map = |p: Projection, out, into, bias| self.linear(&p.path(layer), out, into, bias);
        let at = format!("model.layers.{layer}.self_attn");
        let qk_norm = || -> Result<_> {
            Ok((
                self.norm(&format!("{at}.q_norm"), c.head_dim)?,
                self.norm(&format!("{at}.k_norm"), c.head_dim)?,
            ))
        };
        Ok(Attention {
            q: map(Projection::Q, query, c.hidden, c.bias.qkv)?,
            k: map(Projection::K, kv, c.hidden, c.bias.qkv)?,
            v: map(Projection::V, kv, c.hidden, c.bias.qkv)?,
            o: map(Projection::O, c.hidden, query, c.bias.o)?,
            qk_norm: c.qk_norm.then(qk_norm).transpose()?,
            sinks: c.sinks.then(|| self.float(&format!("{at}.sinks"), &[c.heads])).transpose()?,
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            window,
        })
    }

    /// A layer's router. Experts whose bias is -∞ are held as a mask's banned ones are, so that every
    /// number that is made of their logits is finite.
    fn router(&self, path: &str, mixture: &Mixture) -> Result<Linear> {
        let weight = self.weight(&format!("{path}.weight"), mixture.experts, self.config.hidden)?;
        let bias = mixture.bias.then(|| self.router_bias(&format!("{path}.bias"), mixture));
        Ok(Linear::new(weight, bias.transpose()?))
    }

    fn router_bias(&self, name: &str, &Mixture { experts, top_k, .. }: &Mixture) -> Result<Tensor> {
        let read = || {
            let mut bias = self.checkpoint.router_bias(name, experts)?;
            let alive = bias.iter().filter(|v| v.is_finite()).count();
            if alive < top_k {
                let reason = format!(
                    "bans all experts but {alive} by -∞, and the router picks {top_k}: fetch the model again"
                );
                return Err(ModelError::tensor(name, reason));
            }
            for dead in bias.iter_mut().filter(|v| v.is_infinite()) {
                *dead = BANNED;
            }
            Ok(bias)
        };
        let (dtype, device) = self.on();
        let bias = self.checkpoint.named(read())?;
        Ok(Tensor::from_vec(bias, experts, device)?.to_dtype(dtype)?)
    }

    fn dense(&self, layer: usize, inner: usize) -> Result<DenseMlp> {
        let hidden = self.config.hidden;
        Ok(DenseMlp {
            gate: self.linear(&Projection::Gate.path(layer), inner, hidden, false)?,
            up: self.linear(&Projection::Up.path(layer), inner, hidden, false)?,
            down: self.linear(&Projection::Down.path(layer), hidden, inner, false)?,
        })
    }

    fn experts(self: &Arc<Self>, layer: usize, mixture: Mixture) -> Result<Experts> {
        let names = ExpertNames::find(&self.checkpoint, layer);
        let router = self.router(&names.router, &mixture)?;
        let in_file = InFile { source: self.clone(), names, mixture };
        let source: Box<dyn ExpertSource> = match self.placement.holding {
            Holding::Streamed => Box::new(in_file),
            _ => {
                Box::new((0..mixture.experts).map(|e| in_file.read(e)).collect::<Result<Vec<_>>>()?)
            }
        };
        Ok(Experts { router, source, mixture })
    }
}

/// A layer's experts in their file.
#[derive(Debug)]
struct InFile {
    source: Arc<Source>,
    names: ExpertNames,
    mixture: Mixture,
}

impl ExpertSource for InFile {
    fn expert(&self, index: usize) -> Result<Cow<'_, Expert>> {
        self.read(index).map(Cow::Owned)
    }
}

impl InFile {
    fn read(&self, index: usize) -> Result<Expert> {
        self.source.meter.beat()?;
        match (self.names.stacked, self.mixture.unit) {
            (false, _) => self.apart(index),
            (true, GatedUnit::Clamped { .. }) => self.in_turns(index),
            (true, GatedUnit::Silu) => self.halves(index),
        }
    }

    /// Every map a tensor of its own.
    fn apart(&self, index: usize) -> Result<Expert> {
        let (hidden, inner) = (self.source.config.hidden, self.mixture.inner);
        let [gate, up, down] =
            self.names.parts.map(|part| format!("{}.{index}.{part}", self.names.experts));
        let map = |path: &str, out, into| self.source.linear(path, out, into, self.mixture.bias);
        let first =
            FirstMaps::Apart { gate: map(&gate, inner, hidden)?, up: map(&up, inner, hidden)? };
        Ok(Expert { first, down: map(&down, hidden, inner)? })
    }

    fn stacked(
        &self,
        part: &str,
        form: Form,
        index: usize,
        out: usize,
        into: usize,
    ) -> Result<Linear> {
        let (source, experts) = (&self.source, self.mixture.experts);
        let name = format!("{}.{part}", self.names.experts);
        let stacked = Stacked { name: &name, experts, out, into, form };
        let (dtype, device) = source.on();
        let weight = match form {
            Form::Mxfp4 if source.on_cuda() => {
                source.checkpoint.device_expert(&stacked, index, device)
            }
            _ => source.checkpoint.expert(&stacked, index, source.packed(), source.on()),
        };
        let weight = source.checkpoint.named(weight)?;
        let bias = || -> Result<Tensor> {
            let (name, range) = (format!("{name}_bias"), index..index + 1);
            let row = source.checkpoint.float_part(&name, &[experts, out], range, dtype, device);
            Ok(source.checkpoint.named(row)?.squeeze(0)?)
        };
        Ok(Linear::new(weight, self.mixture.bias.then(bias).transpose()?))
    }

    /// gpt-oss: gate and up rows interleaved; floats are stored in × out.
    fn in_turns(&self, index: usize) -> Result<Expert> {
        let (hidden, inner) = (self.source.config.hidden, self.mixture.inner);
        let mxfp4 = self.source.config.quantisation == Quantisation::Mxfp4;
        let form = if mxfp4 { Form::Mxfp4 } else { Form::InOut };
        let first =
            FirstMaps::InTurns(self.stacked("gate_up_proj", form, index, 2 * inner, hidden)?);
        Ok(Expert { first, down: self.stacked("down_proj", form, index, hidden, inner)? })
    }

    /// transformers 5: all gate rows, then all up rows.
    fn halves(&self, index: usize) -> Result<Expert> {
        let (hidden, inner) = (self.source.config.hidden, self.mixture.inner);
        let first = FirstMaps::Halves(self.stacked(
            "gate_up_proj",
            Form::OutIn,
            index,
            2 * inner,
            hidden,
        )?);
        Ok(Expert { first, down: self.stacked("down_proj", Form::OutIn, index, hidden, inner)? })
    }
}

//! Llama: dimensions, config.json, and the tensors as the hub has them.

use super::tensors::{Tensor, Values, named, one};
use super::{Layout, TOKENIZER, keep_to};
use crate::error::Result;
use serde_json::{Value, json};

/// Dimensions; the defaults are Llama-3.1-8B's.
#[derive(clap::Args, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Llama {
    /// Layers.
    #[arg(long, default_value_t = Llama::default().layers)]
    pub layers: usize,
    /// Width of the residual stream.
    #[arg(long, default_value_t = Llama::default().hidden)]
    pub hidden: usize,
    /// Width inside the feed-forward part.
    #[arg(long, default_value_t = Llama::default().inner)]
    pub inner: usize,
    /// Query heads.
    #[arg(long, default_value_t = Llama::default().heads)]
    pub heads: usize,
    /// Heads of keys and values.
    #[arg(long, default_value_t = Llama::default().kv_heads)]
    pub kv_heads: usize,
    /// Tokens of the vocabulary.
    #[arg(long, default_value_t = Llama::default().vocab)]
    pub vocab: usize,
}

impl Default for Llama {
    fn default() -> Self {
        Self { layers: 32, hidden: 4096, inner: 14_336, heads: 32, kv_heads: 8, vocab: 128_256 }
    }
}

impl Layout for Llama {
    fn check(&self) -> Result<()> {
        let whole = |n: usize, part: usize| part > 0 && n > 0 && n.is_multiple_of(part);
        keep_to(&[
            (whole(self.hidden, 2 * self.heads), "--hidden must be a multiple of twice --heads"),
            (whole(self.heads, self.kv_heads), "--heads must be a multiple of --kv-heads"),
            (self.vocab >= TOKENIZER, "--vocab must be at least 2048, the tokenizer's"),
            (self.layers > 0 && self.inner > 0, "a dimension is 0"),
        ])
    }

    fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": 2042,
            "eos_token_id": 2046,
            "pad_token_id": 2047,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.inner,
            "max_position_embeddings": 131_072,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-5,
            "rope_scaling": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "rope_theta": 500_000.0,
            "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
            "use_cache": true,
            "vocab_size": self.vocab,
        })
    }

    fn tensors(&self) -> Vec<Tensor> {
        let vocabulary =
            |name: &str| named(name.into(), &[self.vocab, self.hidden], Values::Normal);
        let ends = [
            named("model.norm.weight".into(), &[self.hidden], one()),
            vocabulary("lm_head.weight"),
        ];
        let layers = (0..self.layers).flat_map(|layer| self.of_layer(layer));
        std::iter::once(vocabulary("model.embed_tokens.weight")).chain(layers).chain(ends).collect()
    }

    fn donor(&self) -> &'static str {
        "student"
    }
}

impl Llama {
    fn of_layer(&self, layer: usize) -> Vec<Tensor> {
        let Self { hidden, inner, .. } = *self;
        let kv = hidden / self.heads * self.kv_heads;
        let maps = [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ];
        let at = |name: &str| format!("model.layers.{layer}.{name}.weight");
        let norms = ["input_layernorm", "post_attention_layernorm"];
        let norms = norms.map(|name| named(at(name), &[hidden], one()));
        let maps = maps.map(|(name, out, into)| named(at(name), &[out, into], Values::Normal));
        norms.into_iter().chain(maps).collect()
    }
}

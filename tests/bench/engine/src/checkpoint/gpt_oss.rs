//! gpt-oss: dimensions, config.json, and the tensors as the hub has them.

use super::tensors::{Tensor, Values, named, one};
use super::{Layout, TOKENIZER, keep_to};
use crate::error::Result;
use half::bf16;
use serde_json::{Value, json};

/// Dimensions; the defaults are gpt-oss-20b's.
#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
pub struct GptOss {
    /// Layers.
    #[arg(long, default_value_t = GptOss::default().layers)]
    pub layers: usize,
    /// Width of the residual stream.
    #[arg(long, default_value_t = GptOss::default().hidden)]
    pub hidden: usize,
    /// Width inside an expert.
    #[arg(long, default_value_t = GptOss::default().inner)]
    pub inner: usize,
    /// Experts of a layer.
    #[arg(long, default_value_t = GptOss::default().experts)]
    pub experts: usize,
    /// Experts that a token goes to.
    #[arg(long, default_value_t = GptOss::default().top_k)]
    pub top_k: usize,
    /// Query heads.
    #[arg(long, default_value_t = GptOss::default().heads)]
    pub heads: usize,
    /// Heads of keys and values.
    #[arg(long, default_value_t = GptOss::default().kv_heads)]
    pub kv_heads: usize,
    /// Width of a head.
    #[arg(long, default_value_t = GptOss::default().head_dim)]
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    #[arg(long, default_value_t = GptOss::default().vocab)]
    pub vocab: usize,
}

impl Default for GptOss {
    fn default() -> Self {
        Self {
            layers: 24,
            hidden: 2880,
            inner: 2880,
            experts: 32,
            top_k: 4,
            heads: 64,
            kv_heads: 8,
            head_dim: 64,
            vocab: 201_088,
        }
    }
}

impl GptOss {
    /// Multiplications and additions of one token in all linear maps, the output head left out (a
    /// trace needs none).
    pub fn flops_per_token(&self) -> f64 {
        let (hidden, query, kv) =
            (self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let attention = 2 * hidden * query + 2 * hidden * kv;
        let experts = hidden * self.experts + self.top_k * 3 * hidden * self.inner;
        2.0 * (self.layers * (attention + experts)) as f64
    }
}

impl Layout for GptOss {
    fn check(&self) -> Result<()> {
        let rules = [
            (
                self.hidden.is_multiple_of(32) && self.inner.is_multiple_of(32),
                "--hidden and --inner must be multiples of MXFP4's 32",
            ),
            (self.head_dim.is_multiple_of(2), "--head-dim must be even: rotations turn pairs"),
            (
                self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads.max(1)),
                "--heads must be a multiple of --kv-heads",
            ),
            ((1..=self.experts).contains(&self.top_k), "--top-k must be between 1 and --experts"),
            (self.vocab >= TOKENIZER, "--vocab must be at least 2048, the tokenizer's"),
            (
                self.layers > 0 && self.hidden > 0 && self.inner > 0 && self.head_dim > 0,
                "a dimension is 0",
            ),
        ];
        keep_to(&rules)
    }

    fn config(&self) -> Value {
        let kinds = ["sliding_attention", "full_attention"];
        let layer_types: Vec<&str> = kinds.into_iter().cycle().take(self.layers).collect();
        json!({
            "architectures": ["GptOssForCausalLM"],
            "attention_bias": true,
            "attention_dropout": 0.0,
            "bos_token_id": 2039,
            "eos_token_id": 2041,
            "pad_token_id": 2040,
            "experts_per_token": self.top_k,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initial_context_length": 4096,
            "initializer_range": 0.02,
            "intermediate_size": self.inner,
            "layer_types": layer_types,
            "max_position_embeddings": 131_072,
            "model_type": "gpt_oss",
            "num_attention_heads": self.heads,
            "num_experts_per_tok": self.top_k,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "num_local_experts": self.experts,
            "output_router_logits": false,
            "quantization_config": {
                "modules_to_not_convert": [
                    "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"
                ],
                "quant_method": "mxfp4",
            },
            "rms_norm_eps": 1e-5,
            "rope_scaling": {
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "factor": 32.0,
                "original_max_position_embeddings": 4096,
                "rope_type": "yarn",
                "truncate": false,
            },
            "rope_theta": 150_000,
            "router_aux_loss_coef": 0.9,
            "sliding_window": 128,
            "swiglu_limit": 7.0,
            "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
            "use_cache": true,
            "vocab_size": self.vocab,
        })
    }

    fn tensors(&self) -> Vec<Tensor> {
        all(self).collect()
    }

    fn donor(&self) -> &'static str {
        "teacher"
    }
}

fn all(shape: &GptOss) -> impl Iterator<Item = Tensor> {
    let vocabulary =
        |name: &str| named(name.to_owned(), &[shape.vocab, shape.hidden], Values::Normal);
    let ends = [
        named("model.norm.weight".to_owned(), &[shape.hidden], one()),
        vocabulary("lm_head.weight"),
    ];
    let layers = (0..shape.layers).flat_map(|layer| of_layer(shape, layer));
    std::iter::once(vocabulary("model.embed_tokens.weight")).chain(layers).chain(ends)
}

fn of_layer(shape: &GptOss, layer: usize) -> Vec<Tensor> {
    let GptOss { hidden, inner, experts, heads, .. } = *shape;
    let (query, kv, zero) =
        (heads * shape.head_dim, shape.kv_heads * shape.head_dim, Values::Same(bf16::ZERO));
    let mut found = Vec::new();
    let mut put = |name: &str, shape: &[usize], values| {
        found.push(named(format!("model.layers.{layer}.{name}"), shape, values));
    };
    put("input_layernorm.weight", &[hidden], one());
    for (name, out, width) in
        [("q", query, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, query)]
    {
        put(&format!("self_attn.{name}_proj.weight"), &[out, width], Values::Normal);
        put(&format!("self_attn.{name}_proj.bias"), &[out], zero);
    }
    put("self_attn.sinks", &[heads], zero);
    put("post_attention_layernorm.weight", &[hidden], one());
    put("mlp.router.weight", &[experts, hidden], Values::Normal);
    put("mlp.router.bias", &[experts], zero);
    for (name, out, width) in [("gate_up", 2 * inner, hidden), ("down", hidden, inner)] {
        put(
            &format!("mlp.experts.{name}_proj_blocks"),
            &[experts, out, width / 32, 16],
            Values::Codes,
        );
        put(
            &format!("mlp.experts.{name}_proj_scales"),
            &[experts, out, width / 32],
            Values::Scales,
        );
        put(&format!("mlp.experts.{name}_proj_bias"), &[experts, out], zero);
    }
    found
}

/// A model that is written in no time.
#[cfg(test)]
pub fn small() -> GptOss {
    let (layers, hidden, inner, experts, top_k) = (2, 64, 64, 4, 2);
    GptOss {
        layers,
        hidden,
        inner,
        experts,
        top_k,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        vocab: 2048,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_is_refused() {
        assert!(GptOss::default().check().is_ok());
        assert!(GptOss { hidden: 100, ..small() }.check().is_err());
        assert!(GptOss { kv_heads: 0, ..small() }.check().is_err());
        assert!(GptOss { top_k: 5, ..small() }.check().is_err());
        assert!(GptOss { vocab: 100, ..small() }.check().is_err());
    }

    #[test]
    fn a_token_of_the_20b_costs_six_gflop() {
        // 24 × (2·2880·4096 + 2·2880·512 + 2880·32 + 4·3·2880²) multiplications.
        assert!((GptOss::default().flops_per_token() / 1e9 - 6.056).abs() < 0.01);
    }
}

//! How each family of models spells its `config.json`.

use super::rope::RopeKeys;
use super::{AttentionBias, GatedUnit, Mixture, Mlp, ModelConfig, Quantisation, missing, refuse};
use crate::ModelError;
use serde::Deserialize;
use serde_json::Value;

/// The families known here, by `model_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    GptOss,
    Llama,
    Mistral,
    Mixtral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
}

const FAMILIES: [(&str, Family); 7] = [
    ("gpt_oss", Family::GptOss),
    ("llama", Family::Llama),
    ("mistral", Family::Mistral),
    ("mixtral", Family::Mixtral),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("qwen3_moe", Family::Qwen3Moe),
];

/// Keys of other families that change the mathematics: with any value but a neutral one the file is refused.
const FOREIGN: [&str; 18] = [
    "alibi",
    "attention_chunk_size",
    "attention_multiplier",
    "attn_logit_softcapping",
    "embedding_multiplier",
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "mlp_bias",
    "n_shared_experts",
    "no_rope_layers",
    "num_shared_experts",
    "partial_rotary_factor",
    "qk_layernorm",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "shared_expert_intermediate_size",
    "use_qk_norm",
];

#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    moe_intermediate_size: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    max_position_embeddings: Option<f64>,
    attention_bias: Option<bool>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    num_local_experts: Option<usize>,
    num_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    experts_per_token: Option<usize>,
    norm_topk_prob: Option<bool>,
    decoder_sparse_step: Option<usize>,
    mlp_only_layers: Option<Vec<usize>>,
    swiglu_limit: Option<f64>,
    quantization_config: Option<Value>,
}

/// Reads a `config.json`, not yet checked for sense.
pub(super) fn read(text: &str) -> Result<ModelConfig, ModelError> {
    let value: Value = serde_json::from_str(text).map_err(|e| ModelError::Config(e.to_string()))?;
    let named = value.get("model_type").and_then(Value::as_str);
    // The better message where numbers are missing because the architecture is another one.
    let family = FAMILIES.iter().find(|(name, _)| Some(*name) == named).map(|(_, family)| *family);
    let Some(family) = family else { return unknown_architecture(named) };
    if let Some(key) = FOREIGN.iter().find(|key| value.get(**key).is_some_and(|v| !is_neutral(v))) {
        return refuse(format!("`{key}` changes the mathematics in a way that is not supported"));
    }
    let raw: Raw = serde_json::from_value(value).map_err(|e| ModelError::Config(e.to_string()))?;
    raw.build(family)
}

fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64().is_some_and(|n| n == 0.0 || n == 1.0),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn unknown_architecture<T>(found: Option<&str>) -> Result<T, ModelError> {
    let known = FAMILIES.map(|(name, _)| name).join(", ");
    refuse(format!(
        "model_type `{}` is not known: {known} are. Give a folder of one of these",
        found.unwrap_or("(none)")
    ))
}

impl Raw {
    fn build(self, family: Family) -> Result<ModelConfig, ModelError> {
        if self.hidden_act.as_deref().is_some_and(|a| a != "silu") {
            return refuse(format!("hidden_act {:?} is not known: silu is", self.hidden_act));
        }
        let head_dim = match self.head_dim {
            Some(d) => d,
            None if self.num_attention_heads > 0 => self.hidden_size / self.num_attention_heads,
            None => return Err(missing("num_attention_heads")),
        };
        let rope = RopeKeys {
            theta: self.rope_theta,
            scaling: self.rope_scaling.as_ref(),
            parameters: self.rope_parameters.as_ref(),
            max_position: self.max_position_embeddings,
            // Llama 2 was published with files from before the key; its paper's base is that of Su et al.
            unsaid: (family == Family::Llama).then_some(10_000.0),
        };
        Ok(ModelConfig {
            rope: rope.read()?,
            quantisation: self.quantisation()?,
            windows: self.windows(family)?,
            mlps: self.mlps(family)?,
            bias: self.bias(family),
            architecture: self.model_type.unwrap_or_default(),
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim,
            vocab: self.vocab_size,
            context: self.max_position_embeddings.map(|n| n as usize),
            norm_eps: self.rms_norm_eps,
            qk_norm: matches!(family, Family::Qwen3 | Family::Qwen3Moe),
            sinks: family == Family::GptOss,
            tied: self.tie_word_embeddings.unwrap_or(false),
        })
    }

    fn bias(&self, family: Family) -> AttentionBias {
        match family {
            Family::Qwen2 => AttentionBias { qkv: true, o: false },
            Family::Mistral | Family::Mixtral => AttentionBias { qkv: false, o: false },
            _ => {
                let all = self.attention_bias.unwrap_or(family == Family::GptOss);
                AttentionBias { qkv: all, o: all }
            }
        }
    }

    fn mlps(&self, family: Family) -> Result<Vec<Mlp>, ModelError> {
        let dense = Mlp::Dense { inner: self.intermediate_size };
        let experts = match family {
            Family::GptOss | Family::Mixtral => self.num_local_experts.ok_or_else(|| missing("num_local_experts"))?,
            Family::Qwen3Moe => self.num_experts.or(self.num_local_experts).ok_or_else(|| missing("num_experts"))?,
            _ if self.num_local_experts.or(self.num_experts).is_some_and(|n| n > 0) => {
                return refuse(format!("experts in a {:?} config are not supported", self.model_type));
            }
            _ => return Ok(vec![dense; self.num_hidden_layers]),
        };
        let mixture = Mlp::Experts(self.mixture(family, experts)?);
        let step = self.decoder_sparse_step.unwrap_or(1);
        let only: &[usize] = self.mlp_only_layers.as_deref().unwrap_or_default();
        let sparse = |layer: usize| step > 0 && (layer + 1).is_multiple_of(step) && !only.contains(&layer);
        Ok((0..self.num_hidden_layers).map(|layer| if sparse(layer) { mixture } else { dense }).collect())
    }

    fn mixture(&self, family: Family, experts: usize) -> Result<Mixture, ModelError> {
        let top_k = self.num_experts_per_tok.or(self.experts_per_token);
        let inner = match family {
            Family::Qwen3Moe => self.moe_intermediate_size.ok_or_else(|| missing("moe_intermediate_size"))?,
            _ => self.intermediate_size,
        };
        let unit = match family {
            Family::GptOss => GatedUnit::Clamped { limit: self.swiglu_limit.unwrap_or(7.0) },
            _ => GatedUnit::Silu,
        };
        Ok(Mixture {
            experts,
            top_k: top_k.ok_or_else(|| missing("num_experts_per_tok"))?,
            inner,
            renormalise: family != Family::Qwen3Moe || self.norm_topk_prob.unwrap_or(false),
            unit,
            bias: family == Family::GptOss,
        })
    }

    /// Per-layer windows: `layer_types` where the file has them, else each family's older rule.
    fn windows(&self, family: Family) -> Result<Vec<Option<usize>>, ModelError> {
        let qwen = matches!(family, Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe);
        let window = if qwen && self.use_sliding_window != Some(true) { None } else { self.sliding_window };
        let Some(kinds) = &self.layer_types else {
            if family == Family::GptOss && window.is_none() {
                return Err(missing("sliding_window"));
            }
            if matches!(family, Family::Qwen2 | Family::Qwen3) && window.is_some() && self.max_window_layers.is_none() {
                return Err(missing("max_window_layers"));
            }
            return Ok((0..self.num_hidden_layers)
                .map(|layer| window.filter(|_| self.slides(family, layer)))
                .collect());
        };
        if kinds.len() != self.num_hidden_layers {
            return refuse(format!("layer_types names {} layers of {}", kinds.len(), self.num_hidden_layers));
        }
        let each = |kind: &String| match kind.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" if qwen => Ok(window),
            "sliding_attention" => window.map(Some).ok_or_else(|| missing("sliding_window")),
            other => refuse(format!("layer type `{other}` is not known")),
        };
        kinds.iter().map(each).collect()
    }

    /// Whether a layer slides where `layer_types` does not say it.
    fn slides(&self, family: Family, layer: usize) -> bool {
        match family {
            // Its first release alternated, sliding first.
            Family::GptOss => layer.is_multiple_of(2),
            Family::Llama => false,
            Family::Mistral | Family::Mixtral | Family::Qwen3Moe => true,
            Family::Qwen2 | Family::Qwen3 => self.max_window_layers.is_some_and(|first| layer >= first),
        }
    }

    fn quantisation(&self) -> Result<Quantisation, ModelError> {
        let Some(q) = self.quantization_config.as_ref().filter(|q| !q.is_null()) else { return Ok(Quantisation::None) };
        match q.get("quant_method").and_then(Value::as_str) {
            Some("mxfp4") => Ok(Quantisation::Mxfp4),
            // A GPTQ folder is read by the exporter's reader, which hands over floats.
            Some("gptq") => Ok(Quantisation::None),
            other => refuse(format!("quant_method {other:?} is not known: mxfp4 and gptq are")),
        }
    }
}

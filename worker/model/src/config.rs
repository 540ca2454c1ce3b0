//! What a model is, read from its `config.json`. Every number comes from there; nothing is a library's default.
//!
//! Keys that change the mathematics in a way this crate does not know are refused, never ignored.

use crate::ModelError;
use serde::Deserialize;
use serde_json::Value;
use uspx_domain::ModelShape;

/// A transformer's dimensions and rules.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `model_type` of config.json.
    pub architecture: String,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Per layer: the sliding window in tokens, or `None` for full attention.
    pub windows: Vec<Option<usize>>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Epsilon of the RMS norms.
    pub norm_eps: f64,
    /// Rotary embedding.
    pub rope: Rope,
    /// Biases on q, k, v and o.
    pub attention_bias: bool,
    /// A learned sink logit per head joins the softmax (gpt-oss).
    pub sinks: bool,
    /// What follows attention.
    pub mlp: Mlp,
    /// The output head is the embedding.
    pub tied: bool,
    /// Quantisation of the checkpoint.
    pub quantisation: Quantisation,
}

/// The feed-forward part of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mlp {
    /// down(silu(gate(x)) · up(x)).
    Dense {
        /// Hidden channels.
        inner: usize,
    },
    /// A router picks `top_k` of `experts`; softmax over the picked logits.
    Experts {
        /// Experts per layer.
        experts: usize,
        /// Experts per token.
        top_k: usize,
        /// Hidden channels of an expert.
        inner: usize,
        /// Clamp of gpt-oss's gated unit.
        limit: f64,
    },
}

/// Rotary embedding: its base and how it is stretched.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base θ.
    pub theta: f64,
    /// How frequencies are stretched beyond the trained context.
    pub scaling: RopeScaling,
}

/// Known stretchings.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// YaRN (Peng et al. 2023).
    Yarn {
        /// Context factor.
        factor: f64,
        /// Trained context.
        original: f64,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which it is interpolated.
        beta_slow: f64,
        /// Whether the bounds are rounded to whole dimensions.
        truncate: bool,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
    /// Llama 3.1.
    Llama3 {
        /// Context factor.
        factor: f64,
        /// Trained context.
        original: f64,
        /// Wavelength bound of interpolated frequencies.
        low: f64,
        /// Wavelength bound of kept frequencies.
        high: f64,
    },
}

/// How the weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantisation {
    /// As floats.
    None,
    /// Experts in MXFP4 blocks.
    Mxfp4,
}

#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    vocab_size: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    max_position_embeddings: Option<f64>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<String>>,
    num_local_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    experts_per_token: Option<usize>,
    swiglu_limit: Option<f64>,
    quantization_config: Option<Value>,
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, ModelError> {
    Err(ModelError::Config(reason.into()))
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an unknown architecture, a missing number, or mathematics not known here.
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        let raw: Raw = match serde_json::from_str(text) {
            Ok(raw) => raw,
            Err(e) => return Self::unreadable(text, &e),
        };
        let config = match raw.model_type.as_deref() {
            Some("gpt_oss") => raw.gpt_oss()?,
            Some("llama") => raw.llama()?,
            other => return unknown_architecture(other),
        };
        config.check()?;
        Ok(config)
    }

    /// An unknown architecture is the better message where numbers are missing because of it.
    fn unreadable(text: &str, error: &serde_json::Error) -> Result<Self, ModelError> {
        let kind = serde_json::from_str::<Value>(text).ok();
        match kind.as_ref().map(|v| v.get("model_type").and_then(Value::as_str)) {
            Some(Some("gpt_oss" | "llama")) | None => refuse(error.to_string()),
            Some(other) => unknown_architecture(other),
        }
    }

    fn check(&self) -> Result<(), ModelError> {
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return refuse(format!("{} query heads do not divide over {} KV heads", self.heads, self.kv_heads));
        }
        if self.hidden == 0 || self.windows.is_empty() || !self.head_dim.is_multiple_of(2) || self.head_dim == 0 {
            return refuse("hidden_size, num_hidden_layers and an even head_dim must be above 0");
        }
        if let Mlp::Experts { experts, top_k, .. } = self.mlp
            && (top_k == 0 || top_k > experts)
        {
            return refuse(format!("the router picks {top_k} of {experts} experts"));
        }
        Ok(())
    }

    /// The dimensions that decisions need.
    pub fn shape(&self) -> ModelShape {
        let (experts, top_k, channels) = match self.mlp {
            Mlp::Dense { inner } => (0, 0, inner),
            Mlp::Experts { experts, top_k, .. } => (experts, top_k, 0),
        };
        ModelShape {
            layers: self.windows.len() as u32,
            experts: experts as u32,
            top_k: top_k as u32,
            heads: self.heads as u32,
            channels: channels as u32,
        }
    }
}

fn unknown_architecture<T>(found: Option<&str>) -> Result<T, ModelError> {
    let found = found.unwrap_or("(none)");
    refuse(format!("model_type `{found}` is not known: gpt_oss and llama are. Give a folder of one of these"))
}

impl Raw {
    fn gpt_oss(self) -> Result<ModelConfig, ModelError> {
        let experts = self.num_local_experts.ok_or_else(|| missing("num_local_experts"))?;
        let top_k =
            self.num_experts_per_tok.or(self.experts_per_token).ok_or_else(|| missing("num_experts_per_tok"))?;
        let mlp =
            Mlp::Experts { experts, top_k, inner: self.intermediate_size, limit: self.swiglu_limit.unwrap_or(7.0) };
        let windows = self.windows(true)?;
        self.build(mlp, windows, true)
    }

    fn llama(self) -> Result<ModelConfig, ModelError> {
        if self.mlp_bias == Some(true) {
            return refuse("mlp_bias true is not supported");
        }
        if self.num_local_experts.is_some_and(|n| n > 0) {
            return refuse("num_local_experts in a llama config is not supported");
        }
        let windows = self.windows(false)?;
        let mlp = Mlp::Dense { inner: self.intermediate_size };
        self.build(mlp, windows, false)
    }

    /// Per-layer windows; gpt-oss without `layer_types` alternates, sliding first, as its first release did.
    fn windows(&self, alternate: bool) -> Result<Vec<Option<usize>>, ModelError> {
        let window = || self.sliding_window.ok_or_else(|| missing("sliding_window"));
        match &self.layer_types {
            Some(kinds) if kinds.len() != self.num_hidden_layers => {
                refuse(format!("layer_types names {} layers of {}", kinds.len(), self.num_hidden_layers))
            }
            Some(kinds) => kinds
                .iter()
                .map(|kind| match kind.as_str() {
                    "full_attention" => Ok(None),
                    "sliding_attention" => window().map(Some),
                    other => refuse(format!("layer type `{other}` is not known")),
                })
                .collect(),
            None if alternate => {
                (0..self.num_hidden_layers).map(|l| if l % 2 == 0 { window().map(Some) } else { Ok(None) }).collect()
            }
            None => Ok(vec![None; self.num_hidden_layers]),
        }
    }

    fn build(self, mlp: Mlp, windows: Vec<Option<usize>>, gpt_oss: bool) -> Result<ModelConfig, ModelError> {
        if self.hidden_act.as_deref().is_some_and(|a| a != "silu") {
            return refuse(format!("hidden_act {:?} is not known: silu is", self.hidden_act));
        }
        let head_dim = match self.head_dim {
            Some(d) => d,
            None if self.num_attention_heads > 0 => self.hidden_size / self.num_attention_heads,
            None => return Err(missing("num_attention_heads")),
        };
        Ok(ModelConfig {
            rope: self.rope()?,
            quantisation: self.quantisation()?,
            architecture: self.model_type.unwrap_or_default(),
            hidden: self.hidden_size,
            windows,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim,
            vocab: self.vocab_size,
            norm_eps: self.rms_norm_eps,
            attention_bias: self.attention_bias.unwrap_or(gpt_oss),
            sinks: gpt_oss,
            mlp,
            tied: self.tie_word_embeddings.unwrap_or(false),
        })
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

    fn rope(&self) -> Result<Rope, ModelError> {
        let newer = self.rope_parameters.as_ref().filter(|v| !v.is_null());
        let scaling = self.rope_scaling.as_ref().filter(|v| !v.is_null()).or(newer);
        let inside = |v: &Value| v.get("rope_theta").and_then(Value::as_f64);
        let theta = self.rope_theta.or_else(|| newer.and_then(inside)).or_else(|| scaling.and_then(inside));
        let theta = theta.ok_or_else(|| missing("rope_theta"))?;
        let scaling = match scaling {
            None => RopeScaling::None,
            Some(v) => self.scaling(v)?,
        };
        Ok(Rope { theta, scaling })
    }

    fn scaling(&self, v: &Value) -> Result<RopeScaling, ModelError> {
        let number = |key: &str| v.get(key).and_then(Value::as_f64);
        let need = |key: &str| number(key).ok_or_else(|| missing(&format!("rope_scaling.{key}")));
        let original = || {
            number("original_max_position_embeddings")
                .or(self.max_position_embeddings)
                .ok_or_else(|| missing("rope_scaling.original_max_position_embeddings"))
        };
        match v.get("rope_type").or_else(|| v.get("type")).and_then(Value::as_str) {
            None | Some("default") => Ok(RopeScaling::None),
            Some("yarn") => {
                if number("mscale").is_some() || number("mscale_all_dim").is_some() {
                    return refuse("YaRN's mscale keys are not supported");
                }
                let factor = need("factor")?;
                Ok(RopeScaling::Yarn {
                    factor,
                    original: original()?,
                    beta_fast: number("beta_fast").unwrap_or(32.0),
                    beta_slow: number("beta_slow").unwrap_or(1.0),
                    truncate: v.get("truncate").and_then(Value::as_bool).unwrap_or(true),
                    attention_factor: number("attention_factor").unwrap_or(if factor > 1.0 {
                        0.1 * factor.ln() + 1.0
                    } else {
                        1.0
                    }),
                })
            }
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: need("factor")?,
                original: original()?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
            }),
            Some(other) => refuse(format!("rope type `{other}` is not known: default, yarn and llama3 are")),
        }
    }
}

fn missing(key: &str) -> ModelError {
    ModelError::Config(format!("`{key}` is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEACHER: &str = include_str!("../../../cli/assets/nano/teacher/config.json");
    const STUDENT: &str = include_str!("../../../cli/assets/nano/student/config.json");

    #[test]
    fn reads_the_shipped_models() {
        let teacher = ModelConfig::from_json(TEACHER).unwrap();
        assert_eq!(teacher.windows, vec![Some(64), None, Some(64), None]);
        assert!(matches!(teacher.mlp, Mlp::Experts { experts: 16, top_k: 2, inner: 128, .. }));
        assert!(matches!(teacher.rope.scaling, RopeScaling::Yarn { truncate: false, .. }));
        let student = ModelConfig::from_json(STUDENT).unwrap();
        assert!(student.tied && !student.sinks);
        assert_eq!(student.shape().channels, 384);
    }

    #[test]
    fn both_generations_of_rope_keys_say_the_same() {
        let mut newer: Value = serde_json::from_str(TEACHER).unwrap();
        let object = newer.as_object_mut().unwrap();
        let mut rope = object.remove("rope_scaling").unwrap();
        rope["rope_theta"] = object.remove("rope_theta").unwrap();
        object.insert("rope_parameters".into(), rope);
        let newer = ModelConfig::from_json(&newer.to_string()).unwrap();
        assert_eq!(newer, ModelConfig::from_json(TEACHER).unwrap());
    }

    #[test]
    fn what_changes_the_mathematics_is_refused() {
        for (key, value, word) in [
            ("model_type", Value::from("bert"), "bert"),
            ("hidden_act", Value::from("gelu"), "gelu"),
            ("rope_scaling", serde_json::json!({"rope_type": "longrope"}), "longrope"),
            ("quantization_config", serde_json::json!({"quant_method": "bitnet"}), "bitnet"),
            ("num_key_value_heads", Value::from(3), "3 KV heads"),
        ] {
            let mut config: Value = serde_json::from_str(STUDENT).unwrap();
            config[key] = value;
            let error = ModelConfig::from_json(&config.to_string()).unwrap_err().to_string();
            assert!(error.contains(word), "{key}: {error}");
        }
        let foreign = ModelConfig::from_json("{\"model_type\": \"t5\"}").unwrap_err().to_string();
        assert!(foreign.contains("t5"), "{foreign}");
    }
}

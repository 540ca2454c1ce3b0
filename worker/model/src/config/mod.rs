//! What a model is, read from its `config.json` as transformers 5 reads it.
//!
//! Every key is used, known to have no effect here, or refused where its value changes the
//! mathematics in a way that is not known; a key that nobody knows is named in a warning. `keys` is
//! the table of that, `families` has what a class takes for keys that are missing, `read` makes a
//! [`ModelConfig`] of them, `rope` its rotary embedding.

mod families;
mod keys;
mod read;
mod role;
mod rope;
mod sizes;
mod values;

pub use families::Family;
pub use keys::role;
pub use role::{Neutral, Role};
pub use rope::{Rope, RopeScaling};
pub use values::MAX_VOCABULARY;

use crate::ModelError;
use std::path::Path;
use uspx_domain::{LayerShape, MlpShape, ModelShape};

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
    /// The longest sequence that the model was made for, where the file says it.
    pub context: Option<usize>,
    /// Epsilon of the RMS norms.
    pub norm_eps: f64,
    /// Rotary embedding.
    pub rope: Rope,
    /// Which of attention's linear maps have a bias.
    pub bias: AttentionBias,
    /// Queries and keys are normalised head by head before they are rotated (Qwen3).
    pub qk_norm: bool,
    /// A learned sink logit per head joins the softmax (gpt-oss).
    pub sinks: bool,
    /// Per layer: what follows attention.
    pub mlps: Vec<Mlp>,
    /// The output head is the embedding.
    pub tied: bool,
    /// Quantisation of the checkpoint.
    pub quantisation: Quantisation,
}

/// Biases of attention's linear maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionBias {
    /// On queries, keys and values.
    pub qkv: bool,
    /// On the output.
    pub o: bool,
}

/// The feed-forward part of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mlp {
    /// down(silu(gate(x)) · up(x)).
    Dense {
        /// Hidden channels.
        inner: usize,
    },
    /// A router picks a few experts for every token.
    Experts(Mixture),
}

/// A mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixture {
    /// Experts of the layer.
    pub experts: usize,
    /// Experts per token.
    pub top_k: usize,
    /// Hidden channels of an expert.
    pub inner: usize,
    /// The gates of the chosen experts sum to one: a softmax over their logits. Otherwise the
    /// softmax is over all.
    pub renormalise: bool,
    /// What an expert computes.
    pub unit: GatedUnit,
    /// The router and the experts have biases.
    pub bias: bool,
}

/// The activation between an expert's two products.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GatedUnit {
    /// silu(gate) · up.
    Silu,
    /// (up + 1) · gate · σ(alpha · gate), gate clamped from above and up from both sides (gpt-oss).
    Clamped {
        /// The slope within the sigmoid.
        alpha: f64,
        /// The clamp.
        limit: f64,
    },
}

/// How the weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantisation {
    /// As floats.
    None,
    /// Experts in MXFP4 blocks.
    Mxfp4,
    /// Linear maps in 4 bits as GPTQ packs them; the exporter's reader hands them over as floats.
    Gptq,
}

pub(super) fn refuse<T>(reason: impl Into<String>) -> Result<T, ModelError> {
    Err(ModelError::Config(reason.into()))
}

pub(super) fn missing(key: &str) -> ModelError {
    ModelError::Config(format!("`{key}` is missing"))
}

fn parsed(text: &str) -> Result<serde_json::Value, ModelError> {
    serde_json::from_str(text).map_err(|e| ModelError::Config(e.to_string()))
}

/// The keys of a `config.json` that nobody here knows.
///
/// # Errors
/// Those of [`ModelConfig::from_json`].
pub fn unknown_keys(text: &str) -> Result<Vec<String>, ModelError> {
    let value = parsed(text)?;
    let (keys, family) = read::parse(&value)?;
    let mut unknown = keys::unknown(family, &keys);
    unknown.extend(rope::passed_over(&keys, family)?);
    Ok(unknown)
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an unknown architecture, a missing number, a wrong type, or
    /// mathematics not known here.
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        let config = read::read(&parsed(text)?)?;
        config.check()?;
        Ok(config)
    }

    /// Reads a folder's `config.json`.
    ///
    /// # Errors
    /// As [`Self::from_json`], with the file's path; or it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        Self::open_with_remarks(folder).map(|(config, _)| config)
    }

    /// The same, with the keys that were passed over because nobody knows them, sorted; those
    /// within `rope_scaling` with its name before them.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_remarks(folder: &Path) -> Result<(Self, Vec<String>), ModelError> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::read(&path))?;
        let read = || Ok((Self::from_json(&text)?, unknown_keys(&text)?));
        read().map_err(|e: ModelError| e.located(&path))
    }

    fn check(&self) -> Result<(), ModelError> {
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return refuse(format!(
                "{} query heads do not divide over {} KV heads",
                self.heads, self.kv_heads
            ));
        }
        let empty = |mlp: &Mlp| {
            matches!(mlp, Mlp::Dense { inner: 0 } | Mlp::Experts(Mixture { inner: 0, .. }))
        };
        if self.heads == 0 || self.vocab == 0 || self.mlps.iter().any(empty) {
            return refuse(
                "num_attention_heads, vocab_size, intermediate_size and moe_intermediate_size must be above 0",
            );
        }
        if self.hidden == 0
            || self.windows.is_empty()
            || !self.head_dim.is_multiple_of(2)
            || self.head_dim == 0
        {
            return refuse("hidden_size, num_hidden_layers and an even head_dim must be above 0");
        }
        if let Some(context) = self.context.filter(|context| *context > values::LARGEST) {
            return refuse(format!(
                "the context is stretched to {context} tokens: at most {} are expected",
                values::LARGEST
            ));
        }
        if self.windows.contains(&Some(0)) {
            return refuse("a sliding window of 0 tokens sees nothing");
        }
        if let Some(Mixture { experts, top_k, .. }) = self.mixture()
            && (top_k == 0 || top_k > experts)
        {
            return refuse(format!("the router picks {top_k} of {experts} experts"));
        }
        Ok(())
    }

    /// The mixture of experts of the layers that have one.
    pub fn mixture(&self) -> Option<Mixture> {
        self.mlps.iter().find_map(|mlp| match mlp {
            Mlp::Experts(mixture) => Some(*mixture),
            Mlp::Dense { .. } => None,
        })
    }

    /// The dimensions that decisions need, layer by layer.
    pub fn shape(&self) -> ModelShape {
        let layer = |mlp: &Mlp| {
            let mlp = match mlp {
                Mlp::Dense { inner } => MlpShape::Dense { channels: *inner as u32 },
                Mlp::Experts(m) => MlpShape::Experts {
                    experts: m.experts as u32,
                    top_k: m.top_k as u32,
                    channels: m.inner as u32,
                },
            };
            LayerShape::new(self.heads as u32, mlp)
        };
        ModelShape { layers: self.mlps.iter().map(layer).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const TEACHER: &str = include_str!("../../../../cli/assets/nano/teacher/config.json");
    const STUDENT: &str = include_str!("../../../../cli/assets/nano/student/config.json");

    #[test]
    fn reads_the_shipped_models() {
        let teacher = ModelConfig::from_json(TEACHER).unwrap();
        assert_eq!(teacher.windows, vec![Some(64), None, Some(64), None]);
        assert!(matches!(
            teacher.mixture(),
            Some(Mixture { experts: 16, top_k: 2, inner: 128, .. })
        ));
        assert!(matches!(teacher.rope.scaling, RopeScaling::Yarn { truncate: false, .. }));
        let student = ModelConfig::from_json(STUDENT).unwrap();
        assert!(student.tied && !student.sinks);
        assert_eq!(student.shape().layers[0].mlp, MlpShape::Dense { channels: 384 });
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
            ("mlp_bias", Value::from(true), "mlp_bias"),
            ("partial_rotary_factor", Value::from(0.5), "partial_rotary_factor"),
            ("hidden_size", Value::from("128"), "`hidden_size` is \"128\": a whole number"),
            ("num_local_experts", Value::from(4), "num_local_experts"),
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

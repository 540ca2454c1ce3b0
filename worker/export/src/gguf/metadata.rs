//! `llama.*` keys from a config.json, and a config.json from the keys of any architecture that is
//! read.

use super::llama3;
use super::pairs::Pairs;
use crate::{ExportError, Result, hf};
use candle_core::quantized::gguf_file::Value as Gguf;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use uspx_model::config::ModelConfig;

/// Our own key: the parameters behind `rope_freqs.weight`, which holds only what comes of them.
/// Others ignore it.
const SCALING: &str = "uspx.rope_scaling";

fn lacks(key: &str) -> ExportError {
    ExportError::Unsupported(format!("config.json has no `{key}`"))
}

fn number(config: &Value, key: &str) -> Result<u64> {
    config.get(key).and_then(Value::as_u64).ok_or_else(|| lacks(key))
}

fn small(config: &Value, key: &str) -> Result<Gguf> {
    Ok(Gguf::U32(u32::try_from(number(config, key)?).map_err(|_| lacks(key))?))
}

/// Query heads and KV heads.
///
/// # Errors
/// [`ExportError::Unsupported`] where the configuration lacks them.
pub fn head_counts(config: &Value) -> Result<(usize, usize)> {
    let heads = number(config, "num_attention_heads")?;
    let kv = config.get("num_key_value_heads").and_then(Value::as_u64).unwrap_or(heads);
    Ok((heads as usize, kv as usize))
}

/// The `general.*` and `llama.*` pairs. `file_type` is llama.cpp's number for the mix of block
/// types.
///
/// # Errors
/// [`ExportError::Unsupported`] for a configuration that is not a Llama, or lacks a number.
pub fn to_gguf(config: &Value, name: &str, file_type: u32) -> Result<BTreeMap<String, Gguf>> {
    if config.get("model_type").and_then(Value::as_str) != Some("llama") {
        return Err(ExportError::Unsupported("only the Llama layout is written as GGUF".into()));
    }
    let meant = hf::meant(config)?;
    let dim = Gguf::U32(meant.head_dim as u32);
    let mut pairs = BTreeMap::from([
        ("general.architecture", Gguf::String("llama".into())),
        ("general.name", Gguf::String(name.into())),
        ("general.file_type", Gguf::U32(file_type)),
        ("general.quantization_version", Gguf::U32(2)),
        ("general.alignment", Gguf::U32(32)),
        ("llama.block_count", small(config, "num_hidden_layers")?),
        ("llama.context_length", small(config, "max_position_embeddings")?),
        ("llama.embedding_length", small(config, "hidden_size")?),
        ("llama.feed_forward_length", small(config, "intermediate_size")?),
        ("llama.attention.head_count", small(config, "num_attention_heads")?),
        ("llama.attention.head_count_kv", Gguf::U32(meant.kv_heads as u32)),
        ("llama.attention.layer_norm_rms_epsilon", Gguf::F32(meant.norm_eps as f32)),
        ("llama.attention.key_length", dim.clone()),
        ("llama.attention.value_length", dim.clone()),
        ("llama.rope.dimension_count", dim),
        ("llama.rope.freq_base", Gguf::F32(meant.rope.theta as f32)),
        ("llama.vocab_size", small(config, "vocab_size")?),
    ]);
    if let Some(scaling) = hf::scaling(&meant.rope.scaling) {
        pairs.insert(SCALING, Gguf::String(Value::Object(scaling).to_string()));
    }
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Llama-3.1's frequency divisors, `[head_dim / 2]`, or `None` for a rotation that is not
/// stretched.
///
/// # Errors
/// [`ExportError::Unsupported`] for another stretching.
pub fn rope_factors(config: &Value) -> Result<Option<Vec<f32>>> {
    let ModelConfig { rope, head_dim, .. } = hf::meant(config)?;
    llama3::divisors(&rope, head_dim)
}

/// The architectures that are read: each is `model_type` too.
pub const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// What a file's tensors say that its pairs do not.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Rows of the embedding.
    pub vocab: usize,
    /// There is no output head of its own.
    pub tied: bool,
    /// Queries have a bias.
    pub biased: bool,
    /// The divisors of `rope_freqs.weight`.
    pub factors: Option<Vec<f32>>,
}

/// A config.json from the pairs and from what the tensors say.
///
/// # Errors
/// [`ExportError::Unsupported`] for other architectures, missing keys, and keys that change the
/// mathematics in a way not known here.
pub fn to_config(all: &BTreeMap<String, Gguf>, found: &Found) -> Result<Value> {
    let stated = all
        .get("general.architecture")
        .and_then(|v| v.to_string().ok())
        .map_or("(none)", String::as_str);
    let Some(architecture) = ARCHITECTURES.into_iter().find(|a| *a == stated) else {
        let known = ARCHITECTURES.join(", ");
        return Err(ExportError::Unsupported(format!(
            "GGUF architecture `{stated}` is not read here: {known} are"
        )));
    };
    let pairs = Pairs { all, architecture };
    let (heads, hidden) = (pairs.whole("attention.head_count")?, pairs.whole("embedding_length")?);
    let derived = || hidden.checked_div(heads).ok_or_else(|| pairs.absent("attention.head_count"));
    let dim = pairs.maybe_whole("attention.key_length")?.map_or_else(derived, Ok)?;
    pairs.check(dim)?;
    let context = pairs.whole("context_length")?;
    let window = pairs.window(context)?;
    let theta = pairs.maybe_real("rope.freq_base")?.unwrap_or(10_000.0);
    let eps = pairs.maybe_real("attention.layer_norm_rms_epsilon")?;
    // GGUF has one name for Llama and Mistral; only the window tells.
    let model_type = if window.is_some() { "mistral" } else { architecture };
    let id = |key: &str| all.get(key).and_then(|v| v.to_u64().ok());
    let base = json!({
        "architectures": [class(model_type)],
        "model_type": model_type,
        "hidden_act": "silu",
        "attention_bias": found.biased,
        "mlp_bias": false,
        "hidden_size": hidden,
        "intermediate_size": pairs.whole("feed_forward_length")?,
        "num_hidden_layers": pairs.whole("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs.maybe_whole("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": dim,
        "max_position_embeddings": context,
        "rms_norm_eps": eps.ok_or_else(|| pairs.absent("attention.layer_norm_rms_epsilon"))?,
        "rope_theta": theta,
        "rope_scaling": scaling(&pairs, found, theta, dim)?,
        "sliding_window": window,
        "tie_word_embeddings": found.tied,
        "vocab_size": found.vocab,
        "bos_token_id": id("tokenizer.ggml.bos_token_id"),
        "eos_token_id": id("tokenizer.ggml.eos_token_id"),
        "pad_token_id": id("tokenizer.ggml.padding_token_id"),
    });
    hf::student_config(&base, "float32", None)
}

/// config.json's `rope_scaling`.
fn scaling(pairs: &Pairs<'_>, found: &Found, theta: f64, head_dim: u64) -> Result<Value> {
    if let Some(text) = pairs.all.get(SCALING).and_then(|v| v.to_string().ok()) {
        let parsed = serde_json::from_str::<Map<String, Value>>(text);
        return parsed.map(Value::Object).map_err(|_| pairs.absent(SCALING));
    }
    let kind = pairs
        .get("rope.scaling.type")
        .and_then(|v| v.to_string().ok())
        .map_or("none", String::as_str);
    let factor = pairs.maybe_real("rope.scaling.factor")?.unwrap_or(1.0);
    match (&found.factors, kind) {
        (Some(factors), "none") => llama3::from_divisors(factors, theta, head_dim),
        (None, "none") => Ok(Value::Null),
        (None, "linear") if factor == 1.0 => Ok(Value::Null),
        (None, "yarn") => Ok(json!({
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": pairs.whole("rope.scaling.original_context_length")?,
            "beta_fast": pairs.maybe_real("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            "beta_slow": pairs.maybe_real("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
        })),
        (_, kind) => Err(ExportError::Unsupported(format!(
            "the GGUF file stretches its rotation by `{kind}` in a way that is not known here: none, yarn and Llama 3's \
             frequencies are"
        ))),
    }
}

/// transformers' name of a family's model.
fn class(model_type: &str) -> &'static str {
    match model_type {
        "mistral" => "MistralForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        _ => "LlamaForCausalLM",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama31() -> Value {
        json!({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
            "vocab_size": 128256, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})
    }

    #[test]
    fn config_goes_both_ways() {
        let config = llama31();
        let found = Found {
            vocab: 128_256,
            tied: true,
            biased: false,
            factors: rope_factors(&config).unwrap(),
        };
        let pairs = to_gguf(&config, "x", 15).unwrap();
        let back = to_config(&pairs, &found).unwrap();
        for key in config.as_object().unwrap().keys() {
            assert_eq!(back[key], config[key], "{key}");
        }
        assert_eq!(back["head_dim"], json!(128));
        assert_eq!(back["tie_word_embeddings"], json!(true));
    }

    /// By hand: 8192·θ^(−i/64) / 2π turns fall below 4 after i = 28 and below 1 after i = 34.
    #[test]
    fn frequency_divisors_are_llama_cpps() {
        let factors = rope_factors(&llama31()).unwrap().unwrap();
        assert_eq!(
            (factors.len(), factors[0], factors[28], factors[35], factors[63]),
            (64, 1.0, 1.0, 8.0, 8.0)
        );
        assert!(factors[28..=35].is_sorted_by(|a, b| a < b));
        let mut yarn = llama31();
        yarn["rope_scaling"]["rope_type"] = json!("yarn");
        assert!(matches!(rope_factors(&yarn), Err(ExportError::Unsupported(_))));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let pairs = to_gguf(&llama31(), "x", 15).unwrap();
        let found = Found { vocab: 128_256, tied: true, ..Found::default() };
        assert!(to_config(&pairs, &found).is_ok());
        for (key, value, words) in [
            ("general.architecture", Gguf::String("gemma3".into()), "gemma3"),
            ("llama.rope.scaling.type", Gguf::String("longrope".into()), "longrope"),
            ("llama.expert_count", Gguf::U32(8), "mixture of experts"),
            ("llama.attention.value_length", Gguf::U32(64), "value_length"),
            ("llama.logit_scale", Gguf::F32(0.5), "logit_scale"),
            ("llama.attention.head_count", Gguf::Array(vec![Gguf::U32(32)]), "head_count"),
        ] {
            let mut pairs = pairs.clone();
            // Our own key would speak for the rotation.
            pairs.remove(SCALING);
            pairs.insert(key.into(), value);
            let error = to_config(&pairs, &found).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_window_makes_a_mistral() {
        let mut pairs = to_gguf(&llama31(), "x", 15).unwrap();
        pairs.insert("llama.attention.sliding_window".into(), Gguf::U32(4096));
        let config = to_config(&pairs, &Found { vocab: 128_256, ..Found::default() }).unwrap();
        assert_eq!(
            (&config["model_type"], &config["sliding_window"]),
            (&json!("mistral"), &json!(4096))
        );
    }
}

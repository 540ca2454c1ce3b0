//! `llama.*` keys from a config.json, and a config.json from them.

use crate::hf;
use crate::{ExportError, Result};
use candle_core::quantized::gguf_file::Value as Gguf;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::f64::consts::PI;

/// Our own key: the parameters behind `rope_freqs.weight`, which holds only what comes of them. Others ignore it.
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

/// Width of a head: stated, or hidden over heads.
///
/// # Errors
/// [`ExportError::Unsupported`] where neither is there.
pub fn head_dim(config: &Value) -> Result<u64> {
    let stated = config.get("head_dim").and_then(Value::as_u64);
    let derived = || number(config, "hidden_size").ok()?.checked_div(number(config, "num_attention_heads").ok()?);
    stated.or_else(derived).ok_or_else(|| lacks("head_dim"))
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

/// The `general.*` and `llama.*` pairs. `file_type` is llama.cpp's number for the mix of block types.
///
/// # Errors
/// [`ExportError::Unsupported`] for a configuration that is no Llama, or lacks a number.
pub fn to_gguf(config: &Value, name: &str, file_type: u32) -> Result<BTreeMap<String, Gguf>> {
    if config.get("model_type").and_then(Value::as_str) != Some("llama") {
        return Err(ExportError::Unsupported("only the Llama layout is written as GGUF".into()));
    }
    let dim = Gguf::U32(u32::try_from(head_dim(config)?).map_err(|_| lacks("head_dim"))?);
    let kv = Gguf::U32(u32::try_from(head_counts(config)?.1).map_err(|_| lacks("num_key_value_heads"))?);
    let eps = config.get("rms_norm_eps").and_then(Value::as_f64).ok_or_else(|| lacks("rms_norm_eps"))?;
    let (theta, scaling) = hf::rope(config).ok_or_else(|| lacks("rope_theta"))?;
    let theta = theta.as_f64().ok_or_else(|| lacks("rope_theta"))?;
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
        ("llama.attention.head_count_kv", kv),
        ("llama.attention.layer_norm_rms_epsilon", Gguf::F32(eps as f32)),
        ("llama.attention.key_length", dim.clone()),
        ("llama.attention.value_length", dim.clone()),
        ("llama.rope.dimension_count", dim),
        ("llama.rope.freq_base", Gguf::F32(theta as f32)),
        ("llama.vocab_size", small(config, "vocab_size")?),
    ]);
    if let Some(scaling) = scaling {
        pairs.insert(SCALING, Gguf::String(Value::Object(scaling).to_string()));
    }
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Llama-3.1's frequency divisors, `[head_dim / 2]`, or `None` for a rotation that is not stretched.
///
/// # Errors
/// [`ExportError::Unsupported`] for another stretching.
pub fn rope_factors(config: &Value) -> Result<Option<Vec<f32>>> {
    let (theta, scaling) = hf::rope(config).ok_or_else(|| lacks("rope_theta"))?;
    let theta = theta.as_f64().ok_or_else(|| lacks("rope_theta"))?;
    let Some(scaling) = scaling else { return Ok(None) };
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
    if kind != Some("llama3") {
        return Err(ExportError::Unsupported(format!("rope scaling {kind:?} is not written as GGUF: llama3 is")));
    }
    let value = |key: &str| scaling.get(key).and_then(Value::as_f64).ok_or_else(|| lacks(key));
    let (factor, original) = (value("factor")?, value("original_max_position_embeddings")?);
    let (low, high) = (value("low_freq_factor")?, value("high_freq_factor")?);
    let dim = head_dim(config)? as f64;
    let divisor = |i: u32| {
        let turns = original * theta.powf(-2.0 * f64::from(i) / dim) / (2.0 * PI);
        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    Ok(Some((0..(dim / 2.0) as u32).map(divisor).collect()))
}

/// A config.json from the pairs. `tied` says that the file has no output head of its own.
///
/// # Errors
/// [`ExportError::Unsupported`] for other architectures, missing keys, or a stretched rotation of unknown parameters.
pub fn to_config(pairs: &BTreeMap<String, Gguf>, tied: bool, stretched: bool) -> Result<Value> {
    let absent = |key: &str| ExportError::Unsupported(format!("the GGUF file has no usable `{key}`"));
    let architecture = pairs.get("general.architecture").and_then(|v| v.to_string().ok());
    if architecture.map(String::as_str) != Some("llama") {
        let found = architecture.map_or("(none)", String::as_str);
        return Err(ExportError::Unsupported(format!("GGUF architecture `{found}` is not read here: llama is")));
    }
    let whole = |key: &str| pairs.get(key).and_then(|v| v.to_u64().ok()).ok_or_else(|| absent(key));
    let real = |key: &str| pairs.get(key).and_then(|v| v.to_f32().ok()).map(exact).ok_or_else(|| absent(key));
    let (heads, hidden) = (whole("llama.attention.head_count")?, whole("llama.embedding_length")?);
    let dim = whole("llama.attention.key_length")
        .or_else(|_| hidden.checked_div(heads).ok_or_else(|| absent("head_count")))?;
    let tokens = || pairs.get("tokenizer.ggml.tokens").and_then(|t| t.to_vec().ok()).map(|t| t.len() as u64);
    let vocab = whole("llama.vocab_size").ok().or_else(tokens).ok_or_else(|| absent("llama.vocab_size"))?;
    let scaling = match pairs.get(SCALING).and_then(|v| v.to_string().ok()) {
        Some(text) => serde_json::from_str::<Map<String, Value>>(text).map_err(|_| absent(SCALING))?.into(),
        None if stretched => return Err(absent(SCALING)),
        None => Value::Null,
    };
    let id = |key: &str| pairs.get(key).and_then(|v| v.to_u64().ok());
    let base = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "hidden_size": hidden,
        "intermediate_size": whole("llama.feed_forward_length")?,
        "num_hidden_layers": whole("llama.block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": whole("llama.attention.head_count_kv").unwrap_or(heads),
        "head_dim": dim,
        "max_position_embeddings": whole("llama.context_length")?,
        "rms_norm_eps": real("llama.attention.layer_norm_rms_epsilon")?,
        "rope_theta": real("llama.rope.freq_base").unwrap_or(10_000.0),
        "rope_scaling": scaling,
        "tie_word_embeddings": tied,
        "vocab_size": vocab,
        "bos_token_id": id("tokenizer.ggml.bos_token_id"),
        "eos_token_id": id("tokenizer.ggml.eos_token_id"),
        "pad_token_id": id("tokenizer.ggml.padding_token_id"),
    });
    hf::student_config(&base, "float32", None)
}

/// The shortest decimal of an f32, as f64: 1e-5 instead of 9.99999974e-6.
fn exact(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
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
        let back = to_config(&to_gguf(&config, "x", 15).unwrap(), true, true).unwrap();
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
        assert_eq!((factors.len(), factors[0], factors[28], factors[35], factors[63]), (64, 1.0, 1.0, 8.0, 8.0));
        assert!(factors[28..=35].is_sorted_by(|a, b| a < b));
        let mut yarn = llama31();
        yarn["rope_scaling"]["rope_type"] = json!("yarn");
        assert!(matches!(rope_factors(&yarn), Err(ExportError::Unsupported(_))));
    }

    #[test]
    fn other_architectures_are_refused() {
        let mut pairs = to_gguf(&llama31(), "x", 15).unwrap();
        assert!(to_config(&pairs, true, false).is_ok());
        pairs.remove(SCALING);
        assert!(to_config(&pairs, true, true).is_err());
        pairs.insert("general.architecture".into(), Gguf::String("qwen2".into()));
        let error = to_config(&pairs, true, false).unwrap_err().to_string();
        assert!(error.contains("qwen2"), "{error}");
    }
}

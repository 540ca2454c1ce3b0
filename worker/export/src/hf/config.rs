//! The small files of a student's folder: config.json with its quantisation, and what its
//! conversations are made with.

use crate::{ExportError, Result};
use serde_json::{Map, Value, json};
use std::path::Path;
use uspx_model::chat::ChatFiles;
use uspx_model::config::{ModelConfig, RopeScaling};

/// Reads a JSON file.
///
/// # Errors
/// Missing, or not JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(ExportError::reading(path))?;
    serde_json::from_str(&text).map_err(|e| ExportError::format(path, e))
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    // A value has no keys but strings, so this cannot fail but by bug; the error is passed on all
    // the same.
    let text = serde_json::to_string_pretty(value).map_err(|e| ExportError::format(path, e))?;
    std::fs::write(path, text + "\n").map_err(ExportError::writing(path))
}

/// Sets a key of an object.
pub(crate) fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.into(), value);
    }
}

/// What quantize_config.json holds, and config.json's `quantization_config`: symmetric GPTQ v1 in
/// groups of `group`.
pub(crate) fn quantisation(group: usize, damping: f64) -> Value {
    json!({
        "quant_method": "gptq",
        "bits": 4,
        "group_size": group,
        "sym": true,
        "desc_act": false,
        "lm_head": false,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
        "damp_percent": damping,
        "true_sequential": true,
        "static_groups": false,
        "meta": { "quantizer": [concat!("uspx:", env!("CARGO_PKG_VERSION"))] },
    })
}

/// What a config.json means: every precedence and default as the model that was trained has them.
///
/// # Errors
/// Those of [`ModelConfig::from_json`].
pub(crate) fn meant(config: &Value) -> Result<ModelConfig> {
    Ok(ModelConfig::from_json(&config.to_string())?)
}

/// The base's config.json, completed for every reader: the keys of transformers 5
/// (`rope_parameters`) beside those that candle, mistral.rs and vLLM still look for at the top
/// level (`rope_theta`, `rope_scaling`, `torch_dtype`, `head_dim`). Where the base says a thing
/// twice or not at all, all of them say what the base means. `dtype` is the type of the weights
/// that stay floats.
///
/// # Errors
/// A configuration that is none.
pub fn student_config(base: &Value, dtype: &str, quantisation: Option<&Value>) -> Result<Value> {
    let lacks = || ExportError::Unsupported("the base's config.json is not a JSON object".into());
    let mut config = base.as_object().ok_or_else(lacks)?.clone();
    let meant = meant(base)?;
    let theta = json!(meant.rope.theta);
    let scaling = scaling(&meant.rope.scaling);
    let mut parameters =
        scaling.clone().unwrap_or_else(|| Map::from_iter([("rope_type".into(), json!("default"))]));
    parameters.insert("rope_theta".into(), theta.clone());
    config.insert("head_dim".into(), json!(meant.head_dim));
    config.insert("rope_theta".into(), theta);
    config.insert("rope_scaling".into(), scaling.map_or(Value::Null, Value::Object));
    config.insert("rope_parameters".into(), Value::Object(parameters));
    config.remove("original_max_position_embeddings");
    config.insert("torch_dtype".into(), json!(dtype));
    if config.contains_key("dtype") {
        config.insert("dtype".into(), json!(dtype));
    }
    config.remove("quantization_config");
    if let Some(quantisation) = quantisation {
        config.insert("quantization_config".into(), quantisation.clone());
    }
    Ok(Value::Object(config))
}

/// A stretching as `rope_scaling` has it; `None` for none.
pub(crate) fn scaling(scaling: &RopeScaling) -> Option<Map<String, Value>> {
    let said = match *scaling {
        RopeScaling::None => return None,
        RopeScaling::Yarn {
            factor,
            original,
            beta_fast,
            beta_slow,
            truncate,
            attention_factor,
        } => json!({
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "truncate": truncate,
            "attention_factor": attention_factor,
        }),
        RopeScaling::Llama3 { factor, original, low, high } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "original_max_position_embeddings": original,
            "low_freq_factor": low,
            "high_freq_factor": high,
        }),
    };
    said.as_object()
        .map(|said| said.iter().map(|(key, value)| (key.clone(), whole(value))).collect())
}

/// Readers want a context as a whole number.
fn whole(value: &Value) -> Value {
    match value.as_f64() {
        Some(x) if x.fract() == 0.0 && x.abs() < 1e15 && x >= 1024.0 => json!(x as u64),
        _ => value.clone(),
    }
}

/// Writes what conversations are made with: tokenizer.json, tokenizer_config.json with the template
/// that the student was trained with, and generation_config.json with every token that ends an
/// answer. Each thing is said once: a chat_template.jinja or a special_tokens_map.json beside them
/// could only contradict.
///
/// # Errors
/// A file that is missing in `from`, is not what it should be, or cannot be written.
pub fn write_chat(from: &Path, to: &Path) -> Result<()> {
    let chat = ChatFiles::read(from)?;
    write_json(&to.join("tokenizer.json"), &chat.tokenizer)?;
    write_json(&to.join("tokenizer_config.json"), &chat.settings)?;
    write_json(&to.join("generation_config.json"), &chat.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A config.json with these keys changed.
    fn base(changes: &Value) -> Value {
        let mut config = json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1,
            "intermediate_size": 128, "vocab_size": 100, "rms_norm_eps": 1e-5, "max_position_embeddings": 16384});
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        config
    }

    #[test]
    fn every_reader_finds_the_rope_that_the_base_means() {
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
        let with = |key: &str, value: Value| {
            let mut scaling = llama3.clone();
            scaling[key] = value;
            scaling
        };
        for changes in [
            json!({"rope_theta": 5e5, "rope_scaling": llama3}),
            json!({"rope_parameters": with("rope_theta", json!(5e5))}),
            // The inner base counts, and the outer context.
            json!({"rope_theta": 1e4, "rope_parameters": with("rope_theta", json!(5e5))}),
            json!({"rope_theta": 5e5, "rope_scaling": with("original_max_position_embeddings", json!(4096)),
                "original_max_position_embeddings": 8192}),
        ] {
            let base = base(&changes);
            let config = student_config(&base, "float16", None).unwrap();
            assert_eq!(
                (&config["rope_theta"], &config["rope_scaling"]),
                (&json!(5e5), &llama3),
                "{changes}"
            );
            assert_eq!(config["rope_parameters"], with("rope_theta", json!(5e5)));
            assert_eq!(config["head_dim"], json!(16));
            assert_eq!(meant(&config).unwrap(), meant(&base).unwrap());
        }
        let plain = base(&json!({"rope_theta": 2e4}));
        let plain =
            student_config(&plain, "float16", Some(&json!({"quant_method": "gptq", "bits": 4})))
                .unwrap();
        assert_eq!(plain["rope_scaling"], Value::Null);
        assert_eq!(plain["rope_parameters"], json!({"rope_type": "default", "rope_theta": 2e4}));
        assert_eq!(plain["quantization_config"]["bits"], json!(4));
        assert!(student_config(&json!({"hidden_size": 64}), "float16", None).is_err());
    }
}

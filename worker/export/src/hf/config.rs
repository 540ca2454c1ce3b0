//! The small files of a student's folder: config.json with its quantisation, and what its conversations are made with.

use crate::{ExportError, Result};
use serde_json::{Map, Value, json};
use std::path::Path;
use uspx_model::chat::ChatFiles;

/// Reads a JSON file.
///
/// # Errors
/// Missing, or not JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(ExportError::reading(path))?;
    serde_json::from_str(&text).map_err(|e| ExportError::format(path, e))
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    // A value has no keys but strings, so this cannot fail but by bug; the error is passed on all the same.
    let text = serde_json::to_string_pretty(value).map_err(|e| ExportError::format(path, e))?;
    std::fs::write(path, text + "\n").map_err(ExportError::writing(path))
}

/// What quantize_config.json holds, and config.json's `quantization_config`: symmetric GPTQ v1 in groups of `group`.
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

/// The base's config.json, completed for every reader: the keys of transformers 5 (`rope_parameters`) beside those that
/// candle, mistral.rs and vLLM still look for at the top level (`rope_theta`, `rope_scaling`, `torch_dtype`, `head_dim`).
/// `dtype` is the type of the weights that stay floats.
///
/// # Errors
/// [`ExportError::Unsupported`] where the base's configuration lacks what the keys are made from.
pub fn student_config(base: &Value, dtype: &str, quantisation: Option<&Value>) -> Result<Value> {
    let lacks = |key: &str| ExportError::Unsupported(format!("the base's config.json has no `{key}`"));
    let mut config = base.as_object().ok_or_else(|| lacks("{"))?.clone();
    if config.get("head_dim").is_none_or(Value::is_null) {
        let number = |key: &str| config.get(key).and_then(Value::as_u64).ok_or_else(|| lacks(key));
        let dim = number("hidden_size")?.checked_div(number("num_attention_heads")?);
        config.insert("head_dim".into(), dim.ok_or_else(|| lacks("num_attention_heads"))?.into());
    }
    let (theta, scaling) = rope(base).ok_or_else(|| lacks("rope_theta"))?;
    let mut parameters = scaling.clone().unwrap_or_else(|| Map::from_iter([("rope_type".into(), json!("default"))]));
    parameters.insert("rope_theta".into(), theta.clone());
    config.insert("rope_theta".into(), theta);
    config.insert("rope_scaling".into(), scaling.map_or(Value::Null, Value::Object));
    config.insert("rope_parameters".into(), Value::Object(parameters));
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

/// The rotary base and the stretching, `None` for none, from wherever the configuration keeps them.
pub(crate) fn rope(config: &Value) -> Option<(Value, Option<Map<String, Value>>)> {
    let older = config.get("rope_scaling").and_then(Value::as_object);
    let newer = config.get("rope_parameters").and_then(Value::as_object);
    let inside = |m: Option<&Map<String, Value>>| m.and_then(|m| m.get("rope_theta")).cloned();
    let top = config.get("rope_theta").filter(|v| !v.is_null()).cloned();
    let theta = top.or_else(|| inside(newer)).or_else(|| inside(older))?;
    let kind = |m: &Map<String, Value>| {
        m.get("rope_type").or_else(|| m.get("type")).and_then(Value::as_str).map(str::to_owned)
    };
    let scaling = older.or(newer).filter(|m| kind(m).is_some_and(|k| k != "default")).cloned();
    let scaling = scaling.map(|mut m| {
        m.remove("rope_theta");
        m
    });
    Some((theta, scaling))
}

/// Writes what conversations are made with: tokenizer.json, tokenizer_config.json with the template that the student was
/// trained with, and generation_config.json with every token that ends an answer. Each thing is said once: a
/// chat_template.jinja or a special_tokens_map.json beside them could only contradict.
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

    #[test]
    fn every_reader_finds_its_rope() {
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0});
        let mut newer = llama3.clone();
        newer["rope_theta"] = json!(5e5);
        let sides = json!({"hidden_size": 64, "num_attention_heads": 4});
        let with = |key: &str, value: &Value| {
            let mut c = sides.clone();
            c[key] = value.clone();
            c
        };
        let mut older = with("rope_scaling", &llama3);
        older["rope_theta"] = json!(5e5);
        for base in [older, with("rope_parameters", &newer)] {
            let config = student_config(&base, "float16", None).unwrap();
            assert_eq!(config["rope_theta"], json!(5e5));
            assert_eq!(config["rope_scaling"], llama3);
            assert_eq!(config["rope_parameters"], newer);
            assert_eq!(config["head_dim"], json!(16));
        }
        let plain = student_config(&with("rope_theta", &json!(1e4)), "float16", Some(&json!({"bits": 4}))).unwrap();
        assert_eq!(plain["rope_scaling"], Value::Null);
        assert_eq!(plain["rope_parameters"], json!({"rope_type": "default", "rope_theta": 1e4}));
        assert_eq!(plain["quantization_config"]["bits"], json!(4));
        assert!(matches!(student_config(&sides, "float16", None), Err(ExportError::Unsupported(_))));
    }
}

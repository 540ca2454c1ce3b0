//! Reads a `llama` GGUF file for our own forward pass: weights under their Hugging Face names and in their row order.

use crate::gguf::file::GgufFile;
use crate::gguf::{metadata, names, rope_order, tokenizer};
use crate::{ExportError, Result};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// What a GGUF student is, in the terms of a Hugging Face folder.
#[derive(Debug)]
pub struct LlamaFromGguf {
    /// A config.json.
    pub config_json: Value,
    /// f32 tensors by Hugging Face name.
    pub tensors: HashMap<String, Tensor>,
    /// A tokenizer.json, where the file's splitting rule is known.
    pub tokenizer_json: Option<Value>,
    /// The chat template, where the file has one.
    pub chat_template: Option<String>,
    /// tokenizer_config.json's special tokens, as far as the file names them.
    pub tokenizer_config: Value,
    /// generation_config.json: the tokens that end an answer.
    pub generation_config: Value,
}

/// Reads a GGUF file of architecture `llama`.
///
/// # Errors
/// [`ExportError::Format`] for a file that is truncated or foreign, [`ExportError::Unsupported`] for what is not known here.
pub fn read_gguf(path: &Path) -> Result<LlamaFromGguf> {
    let file = GgufFile::open(path)?;
    let has = |name: &str| file.tensors().contains_key(name);
    let mut config = metadata::to_config(file.metadata(), !has("output.weight"), has(names::ROPE_FREQS))?;
    if let Some(object) = config.as_object_mut() {
        object.insert("attention_bias".into(), has("blk.0.attn_q.bias").into());
    }
    let heads = metadata::head_counts(&config)?;
    let mut tensors = HashMap::new();
    for name in file.tensors().keys().filter(|n| *n != names::ROPE_FREQS) {
        let unknown = || ExportError::format(path, format!("tensor `{name}` is not known in a llama file"));
        let hf = names::to_hf(name).ok_or_else(unknown)?;
        let tensor = in_hf_order(&hf, &file.floats(name)?, heads)?;
        tensors.insert(hf, tensor);
    }
    let text = |key: &str| file.metadata().get(key).and_then(|v| v.to_string().ok()).cloned();
    Ok(LlamaFromGguf {
        config_json: config,
        tensors,
        tokenizer_json: tokenizer::from_gguf(file.metadata()),
        chat_template: text("tokenizer.chat_template"),
        tokenizer_config: special_tokens(&file),
        generation_config: json!({ "eos_token_id": ends(&file) }),
    })
}

/// Puts the rows of a tensor from a GGUF file into the Hugging Face order.
///
/// # Errors
/// [`ExportError::Shape`] where the rows are not whole heads.
pub fn in_hf_order(name: &str, tensor: &Tensor, heads: (usize, usize)) -> Result<Tensor> {
    let Some(count) = rope_order::heads_of(name, heads.0, heads.1) else { return Ok(tensor.clone()) };
    let order: Vec<u32> = rope_order::halves(tensor.dim(0)?, count)?.into_iter().map(|r| r as u32).collect();
    Ok(tensor.index_select(&Tensor::new(order, &Device::Cpu)?, 0)?)
}

fn id(file: &GgufFile, key: &str) -> Option<u64> {
    file.metadata().get(&format!("tokenizer.ggml.{key}_token_id"))?.to_u64().ok()
}

fn special_tokens(file: &GgufFile) -> Value {
    let tokens = file.metadata().get("tokenizer.ggml.tokens").and_then(|t| t.to_vec().ok());
    let token = |key: &str| {
        let index = usize::try_from(id(file, key)?).ok()?;
        tokens.and_then(|t| t.get(index)?.to_string().ok())
    };
    json!({ "bos_token": token("bos"), "eos_token": token("eos"), "pad_token": token("padding") })
}

fn ends(file: &GgufFile) -> Vec<u64> {
    let mut ends: Vec<u64> = ["eos", "eot"].iter().filter_map(|key| id(file, key)).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

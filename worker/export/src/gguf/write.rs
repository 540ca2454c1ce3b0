//! Writes a GGUF file (version 2, by candle) from tensors already encoded.

use crate::gguf::{metadata, names, rope_order, special, tokenizer};
use crate::hf::read_json;
use crate::{ExportError, Result};
use candle_core::quantized::gguf_file::{self, Value as Gguf};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use uspx_model::chat::ChatFiles;

/// llama.cpp's numbers for "mostly Q4_0" and "mostly Q4_K (small)".
const MOSTLY_Q4_0: u32 = 2;
const MOSTLY_Q4_K: u32 = 14;

/// Puts the rows of a float weight or bias into GGUF's order; other tensors pass as they are.
///
/// # Errors
/// [`ExportError::Shape`] where the rows are not whole heads.
pub fn in_gguf_order(name: &str, tensor: &Tensor, heads: (usize, usize)) -> Result<Tensor> {
    let Some(count) = rope_order::heads_of(name, heads.0, heads.1) else {
        return Ok(tensor.clone());
    };
    let order = rope_order::interleaved(tensor.dim(0)?, count)?;
    let order: Vec<u32> = order.into_iter().map(|r| r as u32).collect();
    Ok(tensor.index_select(&Tensor::new(order, &Device::Cpu)?, 0)?)
}

/// Writes `path` from tensors under their Hugging Face names, q and k already in GGUF's row order,
/// and the configuration, tokenizer and template of the base folder `from`. `name` is what readers
/// show (`general.name`).
///
/// # Errors
/// A file that cannot be read or written; a configuration or tokenizer that GGUF cannot hold.
pub fn write_gguf(
    path: &Path,
    from: &Path,
    name: &str,
    tensors: &BTreeMap<String, QTensor>,
) -> Result<()> {
    let config = read_json(&from.join("config.json"))?;
    let mut pairs = metadata::to_gguf(&config, name, file_type(tensors))?;
    pairs.extend(chat_pairs(&ChatFiles::read(from)?, &config)?);
    let factors = metadata::rope_factors(&config)?.map(frequencies).transpose()?;
    let mut named = Vec::with_capacity(tensors.len() + 1);
    for (name, tensor) in tensors {
        let gguf = names::to_gguf(name);
        named.push((
            gguf.ok_or_else(|| {
                ExportError::Unsupported(format!("tensor `{name}` has no name in GGUF"))
            })?,
            tensor,
        ));
    }
    named.extend(factors.as_ref().map(|f| (names::ROPE_FREQS.to_owned(), f)));
    let pairs: Vec<(&str, &Gguf)> = pairs.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = named.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let mut out = BufWriter::new(File::create(path).map_err(ExportError::writing(path))?);
    gguf_file::write(&mut out, &pairs, &tensors)?;
    out.flush().map_err(ExportError::writing(path))
}

fn file_type(tensors: &BTreeMap<String, QTensor>) -> u32 {
    if tensors.values().any(|t| t.dtype() == GgmlDType::Q4_0) { MOSTLY_Q4_0 } else { MOSTLY_Q4_K }
}

fn frequencies(factors: Vec<f32>) -> Result<QTensor> {
    Ok(QTensor::quantize(&Tensor::new(factors, &Device::Cpu)?, GgmlDType::F32)?)
}

/// Tokenizer, special tokens and chat template.
fn chat_pairs(chat: &ChatFiles, config: &Value) -> Result<BTreeMap<String, Gguf>> {
    if chat.template.contains("bos_token") && !chat.special().contains_key("bos_token") {
        // A reader of GGUF then takes a token of its own choice.
        let reason = "the chat template writes `bos_token`, and tokenizer_config.json names none: name it there";
        return Err(ExportError::Unsupported(reason.into()));
    }
    let size = config.get("vocab_size").and_then(Value::as_u64).unwrap_or(0);
    let mut pairs = tokenizer::to_gguf(&chat.tokenizer, size as usize)?;
    pairs.extend(special::to_gguf(chat)?);
    pairs.insert("tokenizer.chat_template".into(), Gguf::String(chat.template.clone()));
    Ok(pairs)
}

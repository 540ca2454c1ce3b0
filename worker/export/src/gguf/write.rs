//! Writes a GGUF file: its header first, then tensors already encoded, in whatever order they come.

use crate::gguf::header::{Encoded, TensorType, header};
use crate::gguf::{metadata, names, rope_order, special, tokenizer};
use crate::hf::read_json;
use crate::tensor_file::{Place, TensorFile};
use crate::{ExportError, Result};
use candle_core::quantized::gguf_file::Value as Gguf;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;
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

/// What a file says before its tensors, whatever their sizes.
#[derive(Debug)]
pub struct Preface {
    pairs: Encoded,
    factors: Option<Vec<f32>>,
}

impl Preface {
    /// Of the base folder `from`, under a name. `linears` is the type of the 4-bit blocks.
    ///
    /// # Errors
    /// A file that cannot be read; a configuration or tokenizer that GGUF cannot hold.
    pub fn of((from, name): (&Path, &str), linears: GgmlDType) -> Result<Self> {
        let config = read_json(&from.join("config.json"))?;
        let mostly = if linears == GgmlDType::Q4_0 { MOSTLY_Q4_0 } else { MOSTLY_Q4_K };
        let mut pairs = metadata::to_gguf(&config, name, mostly)?;
        pairs.extend(chat_pairs(&ChatFiles::read(from)?, &config)?);
        Ok(Self { pairs: Encoded::of(&pairs)?, factors: metadata::rope_factors(&config)? })
    }

    /// The length of a file of these tensors.
    ///
    /// # Errors
    /// A tensor that GGUF cannot hold.
    pub fn length(&self, tensors: &BTreeMap<String, TensorType>) -> Result<u64> {
        Ok(self.header(tensors)?.2)
    }

    fn header(
        &self,
        tensors: &BTreeMap<String, TensorType>,
    ) -> Result<(Vec<u8>, BTreeMap<String, Place>, u64)> {
        let named = |(name, tensor): (&String, &TensorType)| Ok((gguf_name(name)?, tensor.clone()));
        let mut all = tensors.iter().map(named).collect::<Result<Vec<_>>>()?;
        all.extend(self.factors.iter().map(|factors| {
            let kind = TensorType { dtype: GgmlDType::F32, shape: vec![factors.len()] };
            (names::ROPE_FREQS.to_owned(), kind)
        }));
        header(&self.pairs, &all)
    }
}

/// A file on its way, its tensors by their Hugging Face names.
#[derive(Debug)]
pub struct GgufWriter {
    file: TensorFile,
}

impl GgufWriter {
    /// Begins `path` for these tensors, with the configuration, tokenizer and template of the base folder
    /// `from`. `name` is what readers show (`general.name`).
    ///
    /// # Errors
    /// A file that cannot be read or written; a configuration, tokenizer or tensor that GGUF cannot hold.
    pub fn create(
        path: &Path,
        (from, name): (&Path, &str),
        tensors: &BTreeMap<String, TensorType>,
    ) -> Result<Self> {
        let preface = Preface::of((from, name), block_type(tensors))?;
        let (header, places, length) = preface.header(tensors)?;
        let mut file = TensorFile::create(path, &header, places, length)?;
        if let Some(factors) = preface.factors {
            let bytes: Vec<u8> = factors.iter().flat_map(|v| v.to_le_bytes()).collect();
            file.put(names::ROPE_FREQS, 0, &bytes)?;
        }
        Ok(Self { file })
    }

    /// Writes blocks of a tensor, from its byte `at` on; q and k are already in GGUF's row order.
    ///
    /// # Errors
    /// A tensor that was not announced, or leaves its place; a file that cannot be written.
    pub fn put(&mut self, name: &str, at: usize, bytes: &[u8]) -> Result<()> {
        self.file.put(&gguf_name(name)?, at as u64, bytes)
    }

    /// Ends it.
    ///
    /// # Errors
    /// A tensor that was not written.
    pub fn finish(&self) -> Result<()> {
        self.file.finish()
    }
}

/// Writes `path` from tensors in memory: see [`GgufWriter`].
///
/// # Errors
/// As there.
pub fn write_gguf(
    path: &Path,
    from: &Path,
    name: &str,
    tensors: &BTreeMap<String, QTensor>,
) -> Result<()> {
    let kind = |(name, tensor): (&String, &QTensor)| {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().dims().to_vec());
        (name.clone(), TensorType { dtype, shape })
    };
    let mut writer = GgufWriter::create(path, (from, name), &tensors.iter().map(kind).collect())?;
    for (name, tensor) in tensors {
        writer.put(name, 0, &tensor.data()?)?;
    }
    writer.finish()
}

fn gguf_name(name: &str) -> Result<String> {
    let lacks = || ExportError::Unsupported(format!("tensor `{name}` has no name in GGUF"));
    names::to_gguf(name).ok_or_else(lacks)
}

/// The 4-bit blocks that the file has most of.
fn block_type(tensors: &BTreeMap<String, TensorType>) -> GgmlDType {
    let has_q4_0 = tensors.values().any(|t| t.dtype == GgmlDType::Q4_0);
    if has_q4_0 { GgmlDType::Q4_0 } else { GgmlDType::Q4K }
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

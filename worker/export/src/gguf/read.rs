//! Reads a GGUF file for our own forward pass: weights under their Hugging Face names and in their
//! row order.

use crate::compare::Contents;
use crate::gguf::file::GgufFile;
use crate::gguf::metadata::{self, Found};
use crate::gguf::{names, rope_order, special, tokenizer};
use crate::{ExportError, Result, weights};
use candle_core::quantized::GgmlDType;
use candle_core::{Device, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use uspx_kernel::{BlockFormat, BlockMatrix};

/// What a GGUF file holds, in the terms of a Hugging Face folder.
#[derive(Debug)]
pub struct FromGguf {
    /// A config.json.
    pub config_json: Value,
    /// f32 tensors by Hugging Face name.
    pub tensors: HashMap<String, Tensor>,
    /// Matrices in their blocks, by Hugging Face name.
    pub blocks: HashMap<String, BlockMatrix>,
    /// What a conversation takes.
    pub chat: ChatFromGguf,
}

/// A GGUF file's tokenizer and template, likewise.
#[derive(Debug)]
pub struct ChatFromGguf {
    /// A tokenizer.json, or why there is none.
    pub tokenizer: Result<Value>,
    /// The chat template, where the file has one.
    pub template: Option<String>,
    /// tokenizer_config.json's special tokens, as far as the file names them.
    pub tokenizer_config: Value,
    /// generation_config.json: the tokens that end an answer.
    pub generation_config: Value,
}

/// Reads a dense GGUF file, every tensor expanded to f32.
///
/// # Errors
/// [`ExportError::Format`] for a file that is truncated or foreign, [`ExportError::Unsupported`]
/// for what is not known here, [`ExportError::NotFinite`] for damaged weights.
pub fn read_gguf(path: &Path) -> Result<FromGguf> {
    read(path, false)
}

/// The same, but matrices stay in the blocks that the file has them in, where this crate's kernels
/// multiply these.
///
/// # Errors
/// As [`read_gguf`].
pub fn read_quantised(path: &Path) -> Result<FromGguf> {
    read(path, true)
}

fn read(path: &Path, in_blocks: bool) -> Result<FromGguf> {
    let file = GgufFile::open(path)?;
    let config = metadata::to_config(file.metadata(), &found(&file)?)?;
    let heads = metadata::head_counts(&config)?;
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let (mut tensors, mut blocks) = (HashMap::new(), HashMap::new());
    for (name, place) in file.tensors().iter().filter(|(n, _)| *n != names::ROPE_FREQS) {
        let hf = names::to_hf(name).filter(|hf| takes(model_type, hf));
        let hf = hf.ok_or_else(|| {
            ExportError::format(
                path,
                format!("tensor `{name}` is not known in a {model_type} file: it is not read here"),
            )
        })?;
        // Qwen's files keep Hugging Face's order of rows.
        let heads =
            rope_order::heads_of(&hf, heads.0, heads.1).filter(|_| !model_type.starts_with("qwen"));
        match (format_of(place.dtype), place.shape.as_slice()) {
            (Some(format), &[rows, columns]) if in_blocks => {
                let matrix = BlockMatrix::new(format, rows, columns, file.bytes(name)?);
                let matrix = matrix
                    .map_err(|e| ExportError::format(path, format!("tensor `{name}`: {e}")))?;
                let order = heads.map(|heads| rope_order::halves(rows, heads)).transpose()?;
                let turned = order.map_or(Ok(matrix.clone()), |order| matrix.reordered(&order));
                blocks.insert(hf, turned.map_err(|e| ExportError::format(path, e))?);
            }
            _ => {
                let floats = file.floats(name)?;
                if !floats.sum_all()?.to_scalar::<f32>()?.is_finite() {
                    return Err(ExportError::NotFinite(name.clone()));
                }
                let turned = match heads {
                    Some(heads) => in_halves(&floats, heads)?,
                    None => floats,
                };
                tensors.insert(hf, turned);
            }
        }
    }
    Ok(FromGguf { config_json: config, tensors, blocks, chat: chat(&file) })
}

/// What a file of a Llama holds, under the Hugging Face names and in their row order, read tensor by tensor, a
/// vocabulary by some rows at a time.
///
/// # Errors
/// As [`read_gguf`].
pub fn contents(path: &Path) -> Result<Contents> {
    let (file, mut contents) = (GgufFile::open(path)?, Contents::default());
    let config = metadata::to_config(file.metadata(), &found(&file)?)?;
    let heads = metadata::head_counts(&config)?;
    for (name, place) in file.tensors().iter().filter(|(n, _)| *n != names::ROPE_FREQS) {
        let unknown = || ExportError::format(path, format!("tensor `{name}` is not known"));
        let hf = names::to_hf(name).ok_or_else(unknown)?;
        let mut add = |values: &Tensor| -> Result<()> {
            contents.add(&hf, &place.shape, &values.flatten_all()?.to_vec1::<f32>()?);
            Ok(())
        };
        if rope_order::heads_of(&hf, heads.0, heads.1).is_some() {
            add(&in_hf_order(&hf, &file.floats(name)?, heads)?)?;
            continue;
        }
        // A vector in parts would not be whole blocks.
        let rows = place.shape.first().copied().unwrap_or(0);
        if place.shape.len() == 1 {
            add(&file.floats(name)?)?;
        } else {
            weights::panels(rows).try_for_each(|rows| add(&file.rows(name, rows)?))?;
        }
    }
    Ok(contents)
}

/// Reads tokenizer and template alone.
///
/// # Errors
/// [`ExportError::Format`] for a file that is truncated or foreign.
pub fn read_chat(path: &Path) -> Result<ChatFromGguf> {
    Ok(chat(&GgufFile::open(path)?))
}

/// Whether a file has matrices that are not multiplied in their blocks but expanded.
///
/// # Errors
/// As [`read_chat`].
pub fn has_other_matrices(path: &Path) -> Result<bool> {
    let file = GgufFile::open(path)?;
    Ok(file.tensors().values().any(|t| t.shape.len() > 1 && format_of(t.dtype).is_none()))
}

fn chat(file: &GgufFile) -> ChatFromGguf {
    let template =
        file.metadata().get("tokenizer.chat_template").and_then(|v| v.to_string().ok()).cloned();
    let (tokenizer_config, generation_config) = special::from_gguf(file.metadata());
    ChatFromGguf {
        tokenizer: tokenizer::from_gguf(file.metadata()),
        template,
        tokenizer_config,
        generation_config,
    }
}

/// What the tensors say about the model.
fn found(file: &GgufFile) -> Result<Found> {
    let has = |name: &str| file.tensors().contains_key(name);
    let embedding = "token_embd.weight";
    let place = file
        .tensors()
        .get(embedding)
        .ok_or_else(|| ExportError::MissingTensor(embedding.into()))?;
    let factors = has(names::ROPE_FREQS)
        .then(|| file.floats(names::ROPE_FREQS)?.to_vec1().map_err(ExportError::from));
    Ok(Found {
        vocab: place.shape.first().copied().unwrap_or(0),
        tied: !has("output.weight"),
        biased: has("blk.0.attn_q.bias"),
        factors: factors.transpose()?,
    })
}

/// Whether a family's forward pass uses a tensor; one that it does not use would be mathematics
/// left out.
fn takes(model_type: &str, hf_name: &str) -> bool {
    let (module, kind) = hf_name.rsplit_once('.').unwrap_or_default();
    match () {
        () if module.ends_with("q_norm") || module.ends_with("k_norm") => {
            model_type == "qwen3" && kind == "weight"
        }
        () if kind == "bias" => module.contains(".self_attn."),
        () => true,
    }
}

/// The kernels' name of a block type that they multiply.
pub(crate) fn format_of(dtype: GgmlDType) -> Option<BlockFormat> {
    Some(match dtype {
        GgmlDType::Q4_0 => BlockFormat::Q4_0,
        GgmlDType::Q8_0 => BlockFormat::Q8_0,
        GgmlDType::Q4K => BlockFormat::Q4K,
        GgmlDType::Q5K => BlockFormat::Q5K,
        GgmlDType::Q6K => BlockFormat::Q6K,
        _ => return None,
    })
}

/// Puts the rows of a tensor from a GGUF file into the Hugging Face order.
///
/// # Errors
/// [`ExportError::Shape`] where the rows are not whole heads.
pub fn in_hf_order(name: &str, tensor: &Tensor, heads: (usize, usize)) -> Result<Tensor> {
    let Some(count) = rope_order::heads_of(name, heads.0, heads.1) else {
        return Ok(tensor.clone());
    };
    in_halves(tensor, count)
}

/// Rows of `heads` heads in the Hugging Face order.
fn in_halves(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let order: Vec<u32> =
        rope_order::halves(tensor.dim(0)?, heads)?.into_iter().map(|r| r as u32).collect();
    Ok(tensor.index_select(&Tensor::new(order, &Device::Cpu)?, 0)?)
}

//! Opens a 4-bit student's folder or any GGUF file as a model that runs.

use crate::gguf::{read_gguf, read_quantised};
use crate::hf::read_gptq;
use crate::{ExportError, Result};
use std::path::Path;
use uspx_domain::{Digest, Fingerprint};
use uspx_model::chat::Chat;
use uspx_model::checkpoint::Checkpoint;
use uspx_model::config::ModelConfig;
use uspx_model::transformer::Transformer;
use uspx_model::{Holding, LoadedModel, Placement};

/// Opens a GPTQ folder; the weights are expanded, wherever `placement` would have them.
///
/// # Errors
/// What [`read_gptq`] and the model report.
pub fn open_gptq(folder: &Path, placement: Placement) -> Result<LoadedModel> {
    let checkpoint = Checkpoint::in_memory(read_gptq(folder)?);
    let fingerprint = uspx_model::fingerprint(folder)?;
    Ok(LoadedModel::with_weights(folder, checkpoint, placement, fingerprint)?)
}

/// Opens a GGUF file. Unless `placement` asks for floats its matrices stay in memory as the file has them, whatever else
/// it asks: it is not streamed.
///
/// # Errors
/// What [`read_quantised`] and the model report; [`ExportError::Format`] for a file without chat template,
/// [`ExportError::Unsupported`] for one with a tokenizer that is not known here.
pub fn open_gguf(path: &Path, placement: Placement) -> Result<LoadedModel> {
    let floats = placement.holding == Holding::Floats;
    let parts = if floats { read_gguf(path)? } else { read_quantised(path)? };
    let tokenizer = parts.tokenizer_json?;
    let lacks = || ExportError::format(path, "the file has no chat template: take an instruct model");
    let template = parts.chat_template.ok_or_else(lacks)?;
    let chat = Chat::new(&tokenizer.to_string(), &template, &parts.tokenizer_config, &parts.generation_config)?;
    let config = ModelConfig::from_json(&parts.config_json.to_string())?;
    let transformer = Transformer::load(config, Checkpoint::with_blocks(parts.tensors, parts.blocks)?, placement)?;
    Ok(LoadedModel { transformer, chat, fingerprint: file_fingerprint(path)? })
}

fn file_fingerprint(path: &Path) -> Result<Fingerprint> {
    let file = std::fs::File::open(path).map_err(ExportError::reading(path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(ExportError::reading(path))?;
    Ok(Fingerprint(Digest(*hasher.finalize().as_bytes())))
}

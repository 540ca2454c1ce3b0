//! Opens a folder of floats or MXFP4, a 4-bit student's folder, or any GGUF file as a model that
//! runs.

use crate::gguf::{ChatFromGguf, has_other_matrices, read_chat, read_gguf, read_quantised};
use crate::hf::read_gptq;
use crate::{ExportError, Result, formats};
use std::path::Path;
use uspx_domain::{BlobRef, Fingerprint};
use uspx_kernel::Isa;
use uspx_model::chat::{Chat, ChatFiles};
use uspx_model::checkpoint::Checkpoint;
use uspx_model::config::ModelConfig;
use uspx_model::transformer::Transformer;
use uspx_model::{Dictionaries, Holding, LoadedModel, Placement};

/// Opens a model by what it is.
///
/// # Errors
/// Whatever is wrong with it, by file.
pub fn open_any(path: &Path, placement: Placement) -> Result<LoadedModel> {
    match formats::at(path) {
        Some(format) => format.open(path, placement),
        None => Ok(LoadedModel::open(path, placement)?),
    }
}

/// Opens a GPTQ folder. Unless `placement` asks for floats its linear maps stay in 4 bits in memory.
///
/// # Errors
/// What [`read_gptq`] and the model report.
pub fn open_gptq(folder: &Path, placement: Placement) -> Result<LoadedModel> {
    let checkpoint = read_gptq(folder)?;
    let fingerprint = uspx_model::fingerprint(folder)?;
    Ok(LoadedModel::with_weights(folder, checkpoint, placement, fingerprint)?)
}

/// Opens a GGUF file. Unless `placement` asks for floats its matrices stay in memory as the file
/// has them, whatever else it asks: it is not streamed.
///
/// # Errors
/// What [`read_quantised`] and the model report; [`ExportError::Format`] for a file without chat
/// template, [`ExportError::Unsupported`] for one with a tokenizer that is not known here.
pub fn open_gguf(path: &Path, placement: Placement) -> Result<LoadedModel> {
    let floats = placement.holding == Holding::Floats;
    let parts = if floats { read_gguf(path)? } else { read_quantised(path)? };
    let files = gguf_files(path, parts.chat)?;
    let chat = Chat::of(&files)?;
    chat.explain_seams(path);
    let load = || {
        let config = ModelConfig::from_json(&parts.config_json.to_string())?;
        Transformer::load(config, Checkpoint::with_blocks(parts.tensors, parts.blocks)?, placement)
    };
    let transformer = load().map_err(|e| e.located(path))?;
    files.check_ids(transformer.config().vocab, path)?;
    let (fingerprint, dictionaries) = (file_fingerprint(path)?, Dictionaries::default());
    Ok(LoadedModel { transformer, chat, fingerprint, dictionaries })
}

/// The tokenizer and template of a GGUF file, its weights left where they are.
///
/// # Errors
/// As [`open_gguf`].
pub fn gguf_chat(path: &Path) -> Result<Chat> {
    Ok(Chat::of(&gguf_files(path, read_chat(path)?)?)?)
}

/// What the conversations of a GGUF file are made with.
pub(crate) fn gguf_files(path: &Path, parts: ChatFromGguf) -> Result<ChatFiles> {
    let lacks =
        || ExportError::format(path, "the file has no chat template: take an instruct model");
    let template = parts.template.ok_or_else(lacks)?;
    Ok(ChatFiles::of_parts(
        parts.tokenizer?,
        &template,
        parts.tokenizer_config,
        parts.generation_config,
        path,
    )?)
}

/// Why llama.cpp would decode a GGUF file quicker than [`open_gguf`]'s model; `None` where it would
/// not.
///
/// On AVX-512 (VNNI) our products with blocks were measured to be at least as quick as llama.cpp's.
/// Elsewhere they run as compiled from plain Rust, and matrices that our kernels do not know are
/// expanded.
///
/// # Errors
/// A file that is not GGUF, or a `USPX_KERNEL` that cannot be had.
pub fn slower_than_llama_cpp(path: &Path) -> Result<Option<&'static str>> {
    let quick = Isa::active().map_err(|e| ExportError::Unsupported(e.to_string()))?;
    if !matches!(quick, Isa::Amx | Isa::Avx512) {
        return Ok(Some("this processor lacks AVX-512"));
    }
    let expanded = has_other_matrices(path)?
        .then_some("the file has matrices in types that our engine expands");
    Ok(expanded)
}

fn file_fingerprint(path: &Path) -> Result<Fingerprint> {
    let file = std::fs::File::open(path).map_err(ExportError::reading(path))?;
    Ok(Fingerprint(BlobRef::to_all_of(file).map_err(ExportError::reading(path))?.digest))
}

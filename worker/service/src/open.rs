//! Opens whatever holds a model: a folder of floats or MXFP4, a GPTQ folder, a GGUF file.

use std::path::Path;
use uspx_export::{ExportError, open_gguf, open_gptq};
use uspx_model::{LoadedModel, Placement};

/// Opens a model by what it is.
///
/// # Errors
/// Whatever is wrong with it, by file.
pub fn open_any(path: &Path, placement: Placement) -> Result<LoadedModel, ExportError> {
    if path.is_file() {
        return open_gguf(path, placement);
    }
    // `quantize_config.json` stands beside every GPTQ checkpoint, ours and others'.
    if path.join("quantize_config.json").exists() {
        return open_gptq(path, placement);
    }
    Ok(LoadedModel::open(path, placement)?)
}

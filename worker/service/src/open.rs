//! Opens whatever holds a model: a folder of floats or MXFP4, a GPTQ folder, a GGUF file.

use std::path::Path;
use uspx_export::{ExportError, is_gptq, open_gguf, open_gptq};
use uspx_model::{LoadedModel, Placement};

/// Opens a model by what it is.
///
/// # Errors
/// Whatever is wrong with it, by file.
pub fn open_any(path: &Path, placement: Placement) -> Result<LoadedModel, ExportError> {
    if path.is_file() {
        return open_gguf(path, placement);
    }
    if is_gptq(path) {
        return open_gptq(path, placement);
    }
    Ok(LoadedModel::open(path, placement)?)
}

//! SAELens' folder: `cfg.json` and `sae_weights.safetensors`, as version 6 writes and reads them
//! (`SAE.load_from_disk`); older `cfg.json` files are read too.
//!
//! Read are the architectures `standard`, `topk`, `batchtopk` and `jumprelu`; what SAELens would
//! compute with them is computed here. What is written has unit decoder rows, takes activations as
//! they come (`normalize_activations` none) and is `topk` or, of BatchTopK, `jumprelu`, which is
//! what SAELens saves one as.

mod config;
mod weights;

use crate::place::Place;
use crate::sae::Sae;
use crate::{Result, SaeError};
use serde_json::{Value, json};
use std::path::Path;
use uspx_domain::Fingerprint;
use uspx_model::whole_file;

/// The file of settings.
pub const CONFIG: &str = "cfg.json";
/// The file of weights.
pub const WEIGHTS: &str = "sae_weights.safetensors";
/// The version whose format is written: what SAELens decides by how to read a file.
const FORMAT: &str = "6.54.12";

/// Where an SAE is from, which SAELens keeps as metadata.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// The model's name.
    pub model_name: Option<String>,
    /// The model's fingerprint; none in files that others wrote.
    pub model: Option<String>,
    /// Whose activations: TransformerLens' name, where it means a place here.
    pub place: Option<Place>,
    /// The name as it stands there.
    pub hook_name: Option<String>,
    /// Positions at the beginning of every prompt that were left out.
    pub skip: usize,
}

impl About {
    /// Of an SAE that was trained here.
    pub fn trained(name: &str, model: Fingerprint, place: Place, skip: usize) -> Self {
        Self {
            model_name: Some(name.to_owned()),
            model: Some(model.to_string()),
            place: Some(place),
            hook_name: Some(place.hook_name()),
            skip,
        }
    }

    /// Refuses another model than the one that the SAE was trained on, as far as the files say.
    ///
    /// # Errors
    /// It is another one.
    pub fn check(&self, model: Fingerprint) -> Result<()> {
        match &self.model {
            Some(found) if *found != model.to_string() => {
                Err(SaeError::OtherModel { found: found.clone(), here: model.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// Writes an SAE into a folder that is there. The settings come last: where they are, it is whole.
///
/// # Errors
/// A disk that is full or refuses.
pub fn write(folder: &Path, sae: &Sae<f32>, about: &About, training: &Value) -> Result<()> {
    weights::write(&folder.join(WEIGHTS), sae)?;
    let mut config = config::written(sae);
    let metadata = json!({
        "sae_lens_version": FORMAT,
        "sae_lens_training_version": null,
        "model_name": about.model_name,
        "hook_name": about.hook_name,
        "hook_head_index": null,
        "prepend_bos": false,
        // The words of a Python slice.
        "seqpos_slice": if about.skip > 0 { json!([about.skip, null]) } else { json!([null]) },
        "uspx_model": about.model,
        "uspx_training": training,
    });
    if let Some(map) = config.as_object_mut() {
        map.insert("metadata".to_owned(), metadata);
    }
    let path = folder.join(CONFIG);
    let text = serde_json::to_string_pretty(&config).map_err(|e| SaeError::format(&path, e))?;
    whole_file::bytes(&path, text.as_bytes()).map_err(SaeError::file(&path))
}

/// Reads an SAE, whoever wrote it.
///
/// # Errors
/// Files that are missing or damaged, contradict each other, or mean what is not known here.
pub fn read(folder: &Path) -> Result<(Sae<f32>, About)> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(SaeError::file(&path))?;
    let config = config::read(&text).map_err(|reason| SaeError::format(&path, reason))?;
    let path = folder.join(WEIGHTS);
    let sae = weights::read(&path, &config)?;
    Ok((sae, config.about))
}

#[cfg(test)]
mod tests;

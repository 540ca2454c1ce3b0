//! A mask's file: the mask, and which sparse autoencoders the features that it keeps are of.

use crate::error::{CliError, Exit, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use uspx_domain::{Digest, Mask, UnitKind};
use uspx_model::LoadedModel;
use uspx_runtime::text;

/// What stands in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MaskFile {
    /// The mask.
    #[serde(flatten)]
    pub mask: Mask,
    /// Of a mask of features: for each layer, the digest of the sparse autoencoder that they are of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saes: Vec<Option<Digest>>,
}

impl MaskFile {
    /// Of a mask that was built for the model with what is attached to it.
    pub fn new(mask: Mask, model: &LoadedModel) -> Self {
        let saes =
            if mask.lists(UnitKind::Feature).is_some() { digests(model) } else { Vec::new() };
        Self { mask, saes }
    }

    /// Reads one, of whichever model.
    pub fn read(path: &Path) -> Result<Self> {
        let text = text::read(path).map_err(|e| CliError::file(path, &e))?;
        serde_json::from_str(&text).map_err(|e| {
            CliError::new(Exit::BadInput, format!("{}: this is not a mask: {e}", path.display()))
                .help("name a file that `uspx mask build` or a colony wrote")
        })
    }

    /// Refuses a model whose sparse autoencoders are not the mask's. A file that does not say which it
    /// means means those that are there.
    pub fn check_saes(&self, path: &Path, model: &LoadedModel) -> Result<()> {
        if self.saes.is_empty() {
            return Ok(());
        }
        let here = digests(model);
        for layer in 0..self.saes.len().max(here.len()) {
            let [wanted, found] =
                [&self.saes, &here].map(|list| list.get(layer).copied().flatten());
            let (exit, what, help) = match (wanted, found) {
                (Some(_), None) => (
                    Exit::BadInput,
                    "cuts features of a sparse autoencoder",
                    "give its folder: --sae DIR",
                ),
                (None, Some(_)) => (
                    Exit::BadInput,
                    "says nothing of the features of a sparse autoencoder",
                    "leave out its --sae",
                ),
                (Some(a), Some(b)) if a != b => (
                    Exit::Refused,
                    "was made with another sparse autoencoder",
                    "give the folder of that one: --sae DIR",
                ),
                _ => continue,
            };
            let message = format!("{}: the mask {what} of layer {layer}", path.display());
            return Err(CliError::new(exit, message).help(help));
        }
        Ok(())
    }
}

/// Of each layer, which sparse autoencoder it has; empty where no layer has one.
fn digests(model: &LoadedModel) -> Vec<Option<Digest>> {
    let of = |layer| model.dictionaries.of_layer(layer).map(|dictionary| dictionary.digest());
    let all: Vec<Option<Digest>> = (0..model.transformer.layers()).map(of).collect();
    if all.iter().all(Option::is_none) { Vec::new() } else { all }
}

//! A model folder as it is stored: what its files say, held against each other, with none of its
//! weights in memory.

use crate::checkpoint::Checkpoint;
use crate::config::{Mixture, Mlp, ModelConfig};
use crate::names::{ExpertNames, ExpertTensor};
use crate::{Result, inventory};
use std::collections::BTreeMap;
use std::path::Path;

/// A model folder's configuration and tensors.
#[derive(Debug)]
pub struct StoredModel {
    /// What config.json says.
    pub config: ModelConfig,
    /// The weights' files.
    pub checkpoint: Checkpoint,
}

impl StoredModel {
    /// Opens a Hugging Face folder.
    ///
    /// # Errors
    /// Whatever is wrong with configuration or headers, by file: those of opening it to run it, but
    /// for the weights' values, which are not read.
    pub fn open(folder: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = ModelConfig::open(folder)?;
        let place = folder.join("config.json");
        let fits = inventory::check_dimensions(&config, &checkpoint)
            .and_then(|()| inventory::check_quantisation(&config, &checkpoint));
        fits.map_err(|e| e.located(&place))?;
        Ok(Self { config, checkpoint })
    }

    /// Whether the output head is the embedding, as whoever runs the model finds it.
    ///
    /// # Errors
    /// Those of reading the two.
    pub fn is_tied(&self) -> Result<bool> {
        self.checkpoint.named(inventory::is_tied(&self.config, &self.checkpoint))
    }

    /// The layers that have experts.
    fn mixtures(&self) -> impl Iterator<Item = (usize, Mixture)> {
        self.config.mlps.iter().enumerate().filter_map(|(layer, mlp)| match mlp {
            Mlp::Experts(mixture) => Some((layer, *mixture)),
            Mlp::Dense { .. } => None,
        })
    }

    /// The tensors of routers and experts that are there, by name.
    pub fn expert_tensors(&self) -> BTreeMap<String, ExpertTensor> {
        let of = |(layer, mixture): (usize, Mixture)| {
            let tensors = ExpertNames::find(&self.checkpoint, layer).tensors(&mixture);
            tensors.into_iter().map(move |(name, part)| (name, ExpertTensor { layer, part }))
        };
        self.mixtures().flat_map(of).filter(|(name, _)| self.checkpoint.has(name)).collect()
    }

    /// For each expert of a layer whether its router can choose it: see
    /// [`Checkpoint::router_bias`]. Empty for a layer without experts.
    ///
    /// # Errors
    /// A bias that is missing, or is not one.
    pub fn alive(&self, layer: usize) -> Result<Vec<bool>> {
        let Some((_, mixture)) = self.mixtures().find(|(at, _)| *at == layer) else {
            return Ok(Vec::new());
        };
        if !mixture.bias {
            return Ok(vec![true; mixture.experts]);
        }
        let name = format!("{}.bias", ExpertNames::find(&self.checkpoint, layer).router);
        let bias = self.checkpoint.router_bias(&name, mixture.experts);
        Ok(self.checkpoint.named(bias)?.into_iter().map(f32::is_finite).collect())
    }
}

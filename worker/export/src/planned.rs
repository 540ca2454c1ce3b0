//! How large a dense student's weights will be in their file, before anything is cut or written: from shapes
//! alone, by the sums that the writers begin their files with. And the largest student of a size.

mod widths;

use crate::cut::Sizes;
use crate::formats::{self, Sizer};
use crate::hf::{header, places, read_json, set};
use crate::{ExportError, Result, weights};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use uspx_domain::{ExportFormat, UnitKind};
use uspx_model::StoredModel;
use uspx_model::config::ModelConfig;

/// A dense student whose heads and channels may become fewer.
pub struct Planned {
    source: StoredModel,
    /// Its config.json.
    config: Value,
    /// Whether its head is the embedding.
    tied: bool,
    format: Option<ExportFormat>,
    /// Of a format of 4 bits.
    sizer: Option<Sizer>,
    whole: Sizes,
}

/// What fits into so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// All of it.
    Whole,
    /// The student of these sizes, which takes so many bytes.
    Cut(Sizes, u64),
    /// Not even the smallest, which has these sizes.
    None(Sizes, u64),
}

impl Planned {
    /// The student in `folder`, as it would be written: in a format of 4 bits, or, where there is none, as
    /// its own floats without what is cut.
    ///
    /// # Errors
    /// A model that is not dense, or that the format cannot hold; files that cannot be read.
    pub fn open(folder: &Path, format: Option<ExportFormat>) -> Result<Self> {
        let source = StoredModel::open(folder)?;
        if source.config.mixture().is_some() {
            let reason = "a model with experts has no one size for all layers: give --keep instead";
            return Err(ExportError::Refused(reason.into()));
        }
        let config = read_json(&folder.join("config.json"))?;
        let sizer = |format| formats::of(format)?.sizer(folder);
        let sizer = format.map(sizer).transpose()?;
        let (whole, tied) = (Sizes::of(&source.config), source.is_tied()?);
        Ok(Self { source, config, tied, format, sizer, whole })
    }

    /// What it has now.
    pub fn whole(&self) -> Sizes {
        self.whole
    }

    /// Bytes of its weights' files, had it these sizes.
    ///
    /// # Errors
    /// Sizes that the format cannot hold.
    pub fn bytes(&self, sizes: Sizes) -> Result<u64> {
        let config = self.resized(sizes)?;
        match &self.sizer {
            Some(sizer) => sizer(&config),
            None => self.as_stored(&config),
        }
    }

    /// The student with the largest share of the named kinds of unit that takes at most so many bytes. The
    /// share is the same for all of them, as far as sizes of the format go.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn largest(&self, kinds: &[UnitKind], bytes: u64) -> Result<Fit> {
        let all = self.bytes(self.whole)?;
        if all <= bytes {
            return Ok(Fit::Whole);
        }
        let mut smallest = (self.whole, all);
        for sizes in widths::sizes(&self.source.config, kinds, self.format) {
            let found = self.bytes(sizes)?;
            if found <= bytes {
                return Ok(Fit::Cut(sizes, found));
            }
            smallest = (sizes, found);
        }
        Ok(Fit::None(smallest.0, smallest.1))
    }

    /// What its config.json would mean.
    fn resized(&self, sizes: Sizes) -> Result<ModelConfig> {
        let mut config = self.config.clone();
        for (key, value) in sizes.keys(self.whole, self.source.config.head_dim) {
            set(&mut config, key, value);
        }
        let meant = ModelConfig::from_json(&config.to_string())?;
        Ok(ModelConfig { tied: self.tied, ..meant })
    }

    /// Bytes of the files that the source's tensors lie in, those of linear maps and biases resized.
    fn as_stored(&self, config: &ModelConfig) -> Result<u64> {
        let mut shapes: BTreeMap<String, Vec<usize>> = weights::rest(config);
        for (module, (outputs, inputs)) in weights::linears(config)? {
            shapes.insert(format!("{module}.weight"), vec![outputs, inputs]);
        }
        let mut all = 0;
        for (path, tensors) in self.source.checkpoint.shards() {
            let now = |name: &str| shapes.get(name).cloned();
            let coming: Vec<_> = tensors
                .iter()
                .map(|t| (t.name.to_owned(), t.dtype, now(t.name).unwrap_or(t.shape.to_vec())))
                .collect();
            let header = header(path, coming.clone())?;
            all += places(&coming, header.len()).1;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;

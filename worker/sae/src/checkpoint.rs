//! A training's state in a file: weights, moments, and where in the prompts it is. A training that
//! goes on from it makes the same bits as one that was never interrupted.

use crate::adam::Adam;
use crate::fit::FitRequest;
use crate::parameters::Parameters;
use crate::place::Place;
use crate::trainer::Trainer;
use crate::{Recipe, Result, SaeError};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use std::path::Path;
use uspx_domain::Fingerprint;
use uspx_model::whole_file::{self, Named, floats};

/// The header's key.
const KEY: &str = "uspx_sae_training";
/// The format's version.
const VERSION: u32 = 1;
/// Names of the four lists of [`Parameters`].
const LISTS: [&str; 4] = ["encoder", "encoder_bias", "decoder", "decoder_bias"];

/// Where a training is: the round that comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// Pass over the prompts, from 0.
    pub epoch: u32,
    /// Round in it, from 0.
    pub round: u64,
}

/// Which training it is. Only the same one goes on from a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    settings: Recipe,
    model: Fingerprint,
    place: Place,
    /// Digest of all tokens.
    prompts: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    identity: serde_json::Value,
    at: At,
    step: u64,
    steps: u64,
}

impl Identity {
    /// Of what is asked for.
    pub fn of(request: &FitRequest<'_>) -> Self {
        let mut prompts = blake3::Hasher::new();
        for sequence in &request.prompts.sequences {
            prompts.update(&(sequence.ids.len() as u64).to_le_bytes());
            sequence.ids.iter().for_each(|id| {
                prompts.update(&id.to_le_bytes());
            });
        }
        Self {
            settings: request.recipe,
            model: request.model.fingerprint,
            place: request.place,
            prompts: prompts.finalize().to_hex().to_string(),
        }
    }
}

/// Writes a checkpoint, whole or not at all.
///
/// # Errors
/// A disk that is full or refuses.
pub fn write(path: &Path, identity: &Identity, at: At, trainer: &Trainer<f32>) -> Result<()> {
    let failed = |e: serde_json::Error| SaeError::format(path, e);
    let identity = serde_json::to_value(identity).map_err(failed)?;
    let header =
        Header { version: VERSION, identity, at, step: trainer.step, steps: trainer.steps };
    let Trainer { parameters, adam, silent, threshold, scale, .. } = trainer;
    let mut all: Vec<Named> = Vec::new();
    for (what, of) in [("", parameters), ("first.", &adam.first), ("second.", &adam.second)] {
        let lists = LISTS.into_iter().zip(of.lists());
        all.extend(lists.map(|(name, list)| floats(format!("{what}{name}"), &[list.len()], list)));
    }
    let silent_bytes = silent.iter().flat_map(|s| s.to_le_bytes()).collect();
    all.push(("silent".into(), Dtype::U64, vec![silent.len()], silent_bytes));
    let threshold: Vec<u8> = threshold.iter().flat_map(|t| t.to_le_bytes()).collect();
    all.push(("threshold".into(), Dtype::F64, vec![threshold.len() / 8], threshold));
    all.push(floats("scale", &[1], &[*scale]));
    let header = serde_json::to_string(&header).map_err(failed)?;
    whole_file::tensors(path, &all, Some((KEY, header))).map_err(SaeError::file(path))
}

/// Reads the checkpoint of this very training.
///
/// # Errors
/// No file, a damaged one, or one of another training: what differs is named.
pub fn read(path: &Path, identity: &Identity) -> Result<(At, Trainer<f32>)> {
    let damaged = |e: &dyn std::fmt::Display| {
        SaeError::format(path, format!("this is no usable checkpoint: {e}. Train anew"))
    };
    let bytes = std::fs::read(path).map_err(SaeError::file(path))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
    let header = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let header = header.ok_or_else(|| damaged(&"its header names no training"))?;
    let header: Header = serde_json::from_str(header).map_err(|e| damaged(&e))?;
    if header.version != VERSION {
        let what = format!("format version {} is not known here ({VERSION} is)", header.version);
        return Err(damaged(&what));
    }
    check(path, identity, &header.identity)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e))?;
    let list = |name: &str, dtype: Dtype| {
        let view = file.tensor(name).map_err(|e| damaged(&e))?;
        if view.dtype() != dtype {
            return Err(damaged(&format!("{name} is {:?}, not {dtype:?}", view.dtype())));
        }
        Ok(view.data().to_vec())
    };
    let recipe = identity.settings;
    let width = list("decoder_bias", Dtype::F32)?.len() / size_of::<f32>();
    let parameters = |what: &str| {
        let mut made = Parameters::zero(width, recipe.features);
        for (name, place) in LISTS.into_iter().zip(made.lists_mut()) {
            let name = format!("{what}{name}");
            let values: Vec<f32> =
                words(&list(&name, Dtype::F32)?).map(f32::from_le_bytes).collect();
            if values.len() != place.len() {
                return Err(damaged(&format!("{name} has {} values", values.len())));
            }
            *place = values;
        }
        Ok(made)
    };
    let silent: Vec<u64> = words(&list("silent", Dtype::U64)?).map(u64::from_le_bytes).collect();
    let scale = words(&list("scale", Dtype::F32)?).map(f32::from_le_bytes).next();
    let trainer = Trainer {
        parameters: parameters("")?,
        adam: Adam { first: parameters("first.")?, second: parameters("second.")? },
        threshold: words(&list("threshold", Dtype::F64)?).map(f64::from_le_bytes).next(),
        scale: scale.ok_or_else(|| damaged(&"it has no scale"))?,
        step: header.step,
        steps: header.steps,
        silent,
        recipe,
    };
    Ok((header.at, trainer))
}

/// The values that bytes are, before their order is read.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.chunks_exact(N).filter_map(|chunk| chunk.try_into().ok())
}

/// Refuses the checkpoint of another training, naming what differs.
fn check(path: &Path, identity: &Identity, found: &serde_json::Value) -> Result<()> {
    // Through text, as what was found has been.
    let own = serde_json::to_string(identity).and_then(|text| serde_json::from_str(&text));
    let own: serde_json::Value = own.map_err(|e| SaeError::format(path, e))?;
    let differs = |part: &&str| own.get(*part) != found.get(*part);
    let parts = ["settings", "model", "place", "prompts"];
    let what: Vec<&str> = parts.iter().filter(|part| differs(part)).copied().collect();
    if what.is_empty() {
        return Ok(());
    }
    let what = format!("its {} differ", what.join(" and "));
    Err(SaeError::OtherTraining { path: path.to_owned(), what })
}

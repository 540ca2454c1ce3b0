//! A trained student as a plain folder of floats, its adapter merged: what is cut, trained again or read by
//! others as a base is.

use crate::compare::{Verification, compare};
use crate::export::listing;
use crate::hf::{self, read_json};
use crate::{Result, same_chat, weights};
use candle_core::{DType, Device, Tensor, safetensors};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use uspx_domain::Prompt;
use uspx_model::LoadedModel;
use uspx_model::chat::ChatFiles;
use uspx_model::taps::Projection;
use uspx_model::transformer::Transformer;

/// How it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloatsReport {
    /// The type of its weights: the base's, or bf16 where f16 cannot hold them.
    pub dtype: String,
    /// The reading back.
    pub verification: Verification,
    /// Conversations on which the written student, opened again, made the trained student's tokens.
    pub conversations: usize,
    /// Files written, relative to the folder, sorted.
    pub files: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Wall-clock time.
    pub seconds: f64,
}

/// Writes `student`, whose base lies in the folder `base`, into the folder `out` (made if need be), and holds
/// what was written against it: weights, built-in conversations and `conversations`.
///
/// # Errors
/// Files that cannot be read or written; weights that are not finite; a student that makes other tokens.
pub fn write_floats(
    student: &LoadedModel,
    base: &Path,
    conversations: &[Prompt],
    out: &Path,
) -> Result<FloatsReport> {
    let start = Instant::now();
    let tensors = merged(&student.transformer)?;
    let dtype = dtype(&read_json(&base.join("config.json"))?, &tensors)?;
    hf::write_floats(out, base, &tensors, dtype)?;
    let as_written = |(name, tensor): (String, Tensor)| {
        Ok((name, tensor.to_dtype(dtype)?.to_dtype(DType::F32)?))
    };
    let meant = tensors.into_iter().map(as_written).collect::<Result<BTreeMap<_, _>>>()?;
    let read = safetensors::load(out.join("model.safetensors"), &Device::Cpu)?;
    let read = read.into_iter().map(|(name, t)| Ok((name, t.to_dtype(DType::F32)?)));
    let verification = compare(&read.collect::<Result<_>>()?, &meant, 0.0)?;
    let written = ChatFiles::read(out)?;
    let conversations = same_chat::check((&student.chat, base), (&written, out), conversations)?;
    let (files, bytes) = listing(out)?;
    let (dtype, seconds) = (dtype.as_str().to_owned(), start.elapsed().as_secs_f64());
    Ok(FloatsReport { dtype, verification, conversations, files, bytes, seconds })
}

/// Every tensor under its checkpoint name, f32 on the CPU, adapters merged.
fn merged(student: &Transformer) -> Result<BTreeMap<String, Tensor>> {
    let mut all = weights::floats(student)?;
    for layer in 0..student.layers() {
        for projection in Projection::DENSE {
            let weight = weights::plain(&student.linear(layer, projection)?.merged()?)?;
            all.insert(format!("{}.weight", projection.path(layer)), weight);
        }
    }
    Ok(all)
}

/// The type that weights are written in.
fn dtype(config: &serde_json::Value, tensors: &BTreeMap<String, Tensor>) -> Result<DType> {
    let said = ["dtype", "torch_dtype"].iter().find_map(|key| config.get(key)?.as_str());
    // This also refuses what is not finite.
    let half = hf::float_type(tensors)?;
    Ok(match said {
        Some("float16") => half,
        Some("bfloat16") => DType::BF16,
        _ => DType::F32,
    })
}

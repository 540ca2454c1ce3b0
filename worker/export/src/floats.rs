//! A trained student as a plain folder of floats, its adapter merged: what is cut, trained again or read by
//! others as a base is.

use crate::compare::{Contents, Verification, compare};
use crate::export::listing;
use crate::hf::{self, FolderWriter, Layout, read_json};
use crate::weights::Piece;
use crate::{Result, same_chat, weights};
use candle_core::DType;
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
    let (start, transformer) = (Instant::now(), &student.transformer);
    let mut floats = weights::rest(transformer.config());
    for (module, (outputs, inputs)) in weights::linears(transformer.config())? {
        floats.insert(format!("{module}.weight"), vec![outputs, inputs]);
    }
    let dtype = dtype(&read_json(&base.join("config.json"))?, transformer)?;
    let (linears, group, damping) = (BTreeMap::new(), 1, 0.0);
    let layout = Layout { linears, group, damping, floats, dtype };
    let mut folder = FolderWriter::create(out, base, layout)?;
    let mut meant = Contents::default();
    each(transformer, &mut |piece| {
        let (values, _) = folder.floats(&piece)?;
        meant.add(piece.name, piece.shape, &weights::values(piece.name, &values)?);
        Ok(())
    })?;
    folder.finish()?;
    let verification = compare(&hf::float_contents(out)?, &meant)?;
    let written = ChatFiles::read(out)?;
    let conversations = same_chat::check((&student.chat, base), (&written, out), conversations)?;
    let (files, bytes) = listing(out)?;
    let (dtype, seconds) = (dtype.as_str().to_owned(), start.elapsed().as_secs_f64());
    Ok(FloatsReport { dtype, verification, conversations, files, bytes, seconds })
}

/// Every tensor under its checkpoint name, adapters merged, layer by layer and a vocabulary in pieces.
fn each(student: &Transformer, see: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
    weights::each_piece(student, see)?;
    for at in 0..student.layers() {
        let layer = student.layer(at)?;
        for projection in Projection::DENSE {
            let rows = weights::plain(&layer.linear(projection)?.merged()?)?;
            let (name, shape) = (format!("{}.weight", projection.path(at)), rows.dims().to_vec());
            see(Piece { name: &name, shape: &shape, first: 0, rows })?;
        }
    }
    Ok(())
}

/// The type that weights are written in.
fn dtype(config: &serde_json::Value, student: &Transformer) -> Result<DType> {
    let said = ["dtype", "torch_dtype"].iter().find_map(|key| config.get(key)?.as_str());
    match said {
        Some("float16") => half(student),
        Some("bfloat16") => Ok(DType::BF16),
        _ => Ok(DType::F32),
    }
}

/// f16, or bf16 where a value exceeds it.
fn half(student: &Transformer) -> Result<DType> {
    let mut fits = true;
    each(student, &mut |piece| {
        fits &= hf::fits_f16(&weights::values(piece.name, &piece.rows)?);
        Ok(())
    })?;
    Ok(if fits { DType::F16 } else { DType::BF16 })
}

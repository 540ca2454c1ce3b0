//! A model with what a mask cuts physically gone, experts of a mixture or layers, heads and channels of
//! a dense one: its folder written anew, tensor by tensor, what is kept bit for bit as it is stored
//! (MXFP4's blocks and scales too).
//!
//! `plan` says what goes where and what cannot be removed, `tensors` what becomes of each tensor,
//! `shard` writes a file of them, `folder` all that lies beside.

mod folder;
mod plan;
mod shard;
mod tensors;

use crate::{ExportError, Result};
use plan::Plan;
use serde::Serialize;
use shard::Copier;
use std::path::Path;
use std::time::Instant;
use tensors::Written;
use uspx_domain::{Digest, Fingerprint, Mask};
use uspx_model::chat::ChatFiles;
use uspx_model::{Progress, StoredModel};

pub use folder::NOTE;
pub(crate) use plan::counts_of_heads;
pub use plan::{Kept, Sizes};

/// What to cut from what.
pub struct CutRequest<'a> {
    /// The model's folder.
    pub folder: &'a Path,
    /// The same, opened.
    pub source: &'a StoredModel,
    /// Its fingerprint; of a model with an adapter merged, that of the model without.
    pub fingerprint: Fingerprint,
    /// The mask, of the model of that fingerprint.
    pub mask: &'a Mask,
    /// Digest of the adapter that is merged, if one is: the note tells it.
    pub adapter: Option<Digest>,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct CutReport {
    /// The written model.
    pub fingerprint: Fingerprint,
    /// What went and what stayed.
    #[serde(flatten)]
    pub kept: Kept,
    /// Bytes of the tensors before.
    pub bytes_before: u64,
    /// Bytes of the tensors now.
    pub bytes: u64,
    /// The files, sorted.
    pub files: Vec<String>,
    /// Files of the source that hold weights in other forms, with nothing cut, and were not copied.
    pub left_out: Vec<String>,
    /// Time.
    pub seconds: f64,
}

/// Writes the model of `request` without what its mask cuts into the folder `out`, made
/// if need be; every byte is read back. In memory is never more than a piece of a tensor. `progress`
/// hears of bytes written and read.
///
/// # Errors
/// [`ExportError::Refused`] for a mask that cannot be carried out so; [`ExportError::Room`];
/// [`ExportError::Format`] where what is read back is not what was written;
/// [`uspx_model::ModelError::Stopped`] within where `progress` asks for it. What was written stays
/// in `out`, which is to be thrown away then.
pub fn write_cut(
    request: &CutRequest<'_>,
    out: &Path,
    progress: &dyn Progress,
) -> Result<CutReport> {
    let start = Instant::now();
    let plan = Plan::of(request)?;
    let shards = tensors::written(request.source, &plan)?;
    let bytes = shards.iter().flat_map(|(_, tensors)| tensors).map(Written::bytes).sum::<u64>();
    std::fs::create_dir_all(out).map_err(ExportError::writing(out))?;
    check_room(out, bytes)?;
    let half = Half { progress, second: false };
    let mut copier = Copier::new(&request.source.checkpoint, &half, bytes);
    let digests = write_shards(&mut copier, &shards, out)?;
    folder::write_index(&shards, out)?;
    folder::write_config(request, &plan, out)?;
    let left_out = folder::copy_others(request.folder, out)?;
    folder::write_note(request, &plan, out)?;
    folder::sync(out)?;
    let half = Half { progress, second: true };
    let fingerprint = read_back(request.source, &plan, &digests, out, &half)?;
    Ok(CutReport {
        fingerprint,
        kept: plan.kept(),
        bytes_before: request.source.checkpoint.stored_bytes(),
        bytes,
        files: crate::export::listing(out)?.0,
        left_out,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// What is left on the disk beside the weights: configuration, tokenizer, template.
const SPARE: u64 = 64 << 20;

fn check_room(folder: &Path, bytes: u64) -> Result<()> {
    let need = bytes.saturating_add(SPARE);
    let have = fs4::available_space(folder).map_err(ExportError::reading(folder))?;
    if have >= need {
        return Ok(());
    }
    Err(ExportError::Room { folder: folder.to_owned(), need, have })
}

/// One half of the work: what is written is read back after.
struct Half<'a> {
    progress: &'a dyn Progress,
    second: bool,
}

impl Progress for Half<'_> {
    fn report(&self, done: u64, total: u64) -> uspx_model::Result<()> {
        let before = if self.second { total } else { 0 };
        self.progress.report(before + done, 2 * total)
    }
}

/// Writes the weights; the name and digest of each file.
fn write_shards(
    copier: &mut Copier<'_>,
    shards: &[(String, Vec<Written>)],
    out: &Path,
) -> Result<Vec<(String, Digest)>> {
    let write = |(file, tensors): &(String, Vec<Written>)| {
        Ok((file.clone(), copier.write(&out.join(file), tensors)?))
    };
    shards.iter().map(write).collect()
}

/// Reads everything back, and says what model it is.
fn read_back(
    source: &StoredModel,
    plan: &Plan,
    meant: &[(String, Digest)],
    out: &Path,
    progress: &dyn Progress,
) -> Result<Fingerprint> {
    let found = uspx_model::digests(out, progress)?;
    for (file, digest) in meant {
        let path = out.join(file);
        if !found.contains(&(path.clone(), *digest)) {
            let reason = "does not read back as it was written: the disk or the memory is failing";
            return Err(ExportError::format(&path, reason));
        }
    }
    let written = StoredModel::open(out)?;
    let mut wanted = source.config.clone();
    plan.apply(&mut wanted);
    if written.config != wanted {
        let path = out.join("config.json");
        return Err(ExportError::format(&path, "means more than other counts of what was cut"));
    }
    Ok(uspx_model::fingerprint_of(&found, &ChatFiles::read(out)?)?)
}

#[cfg(test)]
mod tests;

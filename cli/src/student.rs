//! Students that are trained or written in 4 bits: dense models, held in memory as 32-bit floats.

use crate::args::RunArgs;
use crate::error::{CliError, Exit, Result};
use crate::models::{self, Opened};
use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use uspx_domain::{ADAPTER_TENSORS, Digest, UnitKind};
use uspx_export::formats;
use uspx_model::budget::{Beside, Workload};
use uspx_model::config::ModelConfig;
use uspx_model::{Holding, LoadedModel, Placement};

/// Looks at the student before long work that comes first, and closes it again: the teacher gets the memory.
/// Of one that is quantised as it is read, which takes minutes, only the headers are looked at.
///
/// # Errors
/// As [`open`].
pub fn look(folder: &Path, run: &RunArgs, work: Workload) -> Result<()> {
    if !matches!(work, Workload::TrainingNf4 { .. }) {
        return open(folder, run, work).map(drop);
    }
    refuse(folder)?;
    models::check_there(folder)?;
    models::machine(&run.machine)?.place(folder, work, Beside::NOTHING)?;
    Ok(())
}

/// The student in a folder, for `work`.
///
/// # Errors
/// One that is not there, is in 4 bits already, is not dense, or does not fit in memory.
pub fn open(folder: &Path, run: &RunArgs, work: Workload) -> Result<Opened> {
    refuse(folder)?;
    models::opened(folder, run, work)
}

/// Refuses what is no student to be trained or written.
fn refuse(folder: &Path) -> Result<()> {
    let refuse = |what: String| CliError::new(Exit::BadInput, what);
    if formats::at(folder).is_some() {
        let message = format!("{} is in 4 bits already", folder.display());
        return Err(refuse(message).help("give the folder of the model that it was made from"));
    }
    // Adapters and 4-bit formats are of dense linear maps.
    if folder.exists() && ModelConfig::open(folder)?.shape().count(UnitKind::Expert) > 0 {
        let message = format!("{} has experts, and a student is a dense model", folder.display());
        return Err(refuse(message).help("take a smaller dense model as the student"));
    }
    Ok(())
}

/// The student in a folder, a layer of it in memory at a time: to be written anew on whatever machine.
///
/// # Errors
/// As [`open`].
pub fn streamed(folder: &Path) -> Result<LoadedModel> {
    refuse(folder)?;
    models::check_there(folder)?;
    let placement = Placement::new(Holding::Streamed, DType::F32, &Device::Cpu);
    Ok(LoadedModel::open(folder, placement)?)
}

/// Hangs an adapter on the student, its folder or its tensors' file; the file's digest.
///
/// # Errors
/// A file that is not there, or no adapter of this student.
pub fn attach(student: &mut LoadedModel, adapter: &Path) -> Result<Digest> {
    let file = adapter_file(adapter);
    let bytes = std::fs::read(&file).map_err(|e| CliError::file(&file, &e))?;
    uspx_distill::load_adapter(student, &bytes)?;
    Ok(Digest::of(&bytes))
}

/// The tensors of an adapter: `path` itself, or the file in it under PEFT's name.
fn adapter_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(ADAPTER_TENSORS) } else { path.to_owned() }
}

//! The models on this machine, by fingerprint: what is offered to the colony, and read when a task
//! asks.

use crate::WorkerError;
use crate::error::JobError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use uspx_domain::Fingerprint;
use uspx_model::budget::Demands;
use uspx_model::checkpoint::Checkpoint;
use uspx_model::config::ModelConfig;
use uspx_model::{LoadedModel, ModelError, Placement, fingerprint};
use uspx_wire::HeldModel;

/// What is on the disk.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    models: BTreeMap<Fingerprint, Held>,
}

/// A model folder.
#[derive(Debug, Clone)]
struct Held {
    folder: PathBuf,
    report: HeldModel,
    demands: Demands,
    stamp: Stamp,
}

/// What the files of a folder looked like when they were hashed.
type Stamp = BTreeSet<(PathBuf, u64, Option<SystemTime>)>;

impl Holdings {
    /// Looks at every folder; weights are hashed but not kept.
    ///
    /// # Errors
    /// A folder that holds no model, named.
    pub fn scan(folders: &[PathBuf]) -> Result<Self, WorkerError> {
        let mut models = BTreeMap::new();
        for folder in folders {
            let held = look(folder)
                .map_err(|source| WorkerError::Model { folder: folder.clone(), source })?;
            models.insert(held.report.fingerprint, held);
        }
        Ok(Self { models })
    }

    /// What the heartbeat says.
    pub fn report(&self) -> Vec<HeldModel> {
        self.models.values().map(|held| held.report.clone()).collect()
    }

    /// The model in a folder that was looked at, under the path that it was given by.
    pub fn at(&self, folder: &Path) -> Option<&HeldModel> {
        self.models.values().find(|held| held.folder == folder).map(|held| &held.report)
    }

    /// The folder of a model.
    ///
    /// # Errors
    /// It is not here.
    pub fn folder(&self, model: Fingerprint) -> Result<&Path, JobError> {
        Ok(&self.held(model)?.folder)
    }

    /// What a model demands of memory.
    ///
    /// # Errors
    /// It is not here.
    pub fn demands(&self, model: Fingerprint) -> Result<&Demands, JobError> {
        Ok(&self.held(model)?.demands)
    }

    /// Reads a model. Files that look as they did are not hashed again: of a large model that takes
    /// as long as a task.
    ///
    /// # Errors
    /// It is not here, cannot be read, or is another one by now.
    pub fn open(&self, model: Fingerprint, placement: Placement) -> Result<LoadedModel, JobError> {
        let Held { folder, stamp, .. } = self.held(model)?;
        if stamp_of(folder)? == *stamp {
            let checkpoint = Checkpoint::open(folder)?;
            return Ok(LoadedModel::with_weights(folder, checkpoint, placement, model)?);
        }
        let opened = LoadedModel::open(folder, placement)?;
        if opened.fingerprint != model {
            let reason = "is another model than when this worker was started: start it again";
            let (path, reason) = (folder.clone(), reason.to_owned());
            return Err(ModelError::Malformed { path, reason }.into());
        }
        Ok(opened)
    }

    fn held(&self, model: Fingerprint) -> Result<&Held, JobError> {
        self.models.get(&model).ok_or(JobError::NoModel(model))
    }
}

fn look(folder: &Path) -> Result<Held, ModelError> {
    let config = ModelConfig::open(folder)?;
    // Before the hashing, so that what changes meanwhile is seen.
    let stamp = stamp_of(folder)?;
    let report = HeldModel {
        fingerprint: fingerprint(folder)?,
        shape: config.shape(),
        name: Some(uspx_model::model_name(folder)),
        architecture: config.architecture,
    };
    Ok(Held { folder: folder.to_owned(), report, demands: Demands::of_folder(folder)?, stamp })
}

fn stamp_of(folder: &Path) -> Result<Stamp, ModelError> {
    let stamp = || -> std::io::Result<Stamp> {
        let mut stamp = Stamp::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let found = std::fs::metadata(&path)?;
            if found.is_file() {
                stamp.insert((path, found.len(), found.modified().ok()));
            }
        }
        Ok(stamp)
    };
    stamp().map_err(|source| ModelError::Read { path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn a_model_that_became_another_is_not_run_under_the_old_name() {
        let folder = tempfile::tempdir().unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
        for entry in std::fs::read_dir(shipped).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let holdings = Holdings::scan(&[folder.path().to_owned()]).unwrap();
        let model = holdings.report()[0].fingerprint;
        let open = || holdings.open(model, Placement::floats(DType::F32, &Device::Cpu));
        assert_eq!(open().unwrap().fingerprint, model);
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        assert_eq!(open().unwrap().fingerprint, model, "a file that is not the model's");
        let path = folder.path().join("model.safetensors");
        let mut weights = std::fs::read(&path).unwrap();
        *weights.last_mut().unwrap() ^= 1;
        std::fs::write(&path, weights).unwrap();
        let error = open().err().unwrap();
        assert!(error.to_string().contains("start it again"), "{error}");
        assert_eq!(error.reason(), uspx_domain::FailureReason::ModelUnreadable);
    }
}

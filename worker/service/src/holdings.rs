//! The models on this machine, by fingerprint: what is offered to the colony, and opened when a
//! task asks.

use crate::WorkerError;
use crate::error::JobError;
use candle_core::{DType, Device};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uspx_domain::Fingerprint;
use uspx_model::config::ModelConfig;
use uspx_model::{Holding, LoadedModel, ModelError, Placement, fingerprint};
use uspx_wire::HeldModel;

/// What is on the disk.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    models: BTreeMap<Fingerprint, (PathBuf, HeldModel)>,
}

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
            models.insert(held.fingerprint, (folder.clone(), held));
        }
        Ok(Self { models })
    }

    /// What the heartbeat says.
    pub fn report(&self) -> Vec<HeldModel> {
        self.models.values().map(|(_, held)| held.clone()).collect()
    }

    /// The folder of a model.
    ///
    /// # Errors
    /// It is not here.
    pub fn folder(&self, model: Fingerprint) -> Result<&Path, JobError> {
        self.models.get(&model).map(|(path, _)| path.as_path()).ok_or(JobError::NoModel(model))
    }
}

fn look(folder: &Path) -> Result<HeldModel, ModelError> {
    let config = ModelConfig::open(folder)?;
    Ok(HeldModel {
        fingerprint: fingerprint(folder)?,
        shape: config.shape(),
        architecture: config.architecture,
    })
}

/// The models in memory: at most as many as a campaign uses at once.
pub struct OpenModels {
    holdings: Holdings,
    device: Device,
    scratch: PathBuf,
    open: Vec<(Fingerprint, Arc<LoadedModel>)>,
}

/// Teacher and student.
const KEPT_OPEN: usize = 2;

impl OpenModels {
    /// Nothing is open yet. `scratch` is where jobs put their files.
    pub fn new(holdings: Holdings, device: Device, scratch: PathBuf) -> Self {
        Self { holdings, device, scratch, open: Vec::new() }
    }

    /// The model, opened if it is not; the one longest unused is closed for it.
    ///
    /// # Errors
    /// It is not here, or cannot be opened.
    pub fn get(&mut self, model: Fingerprint) -> Result<Arc<LoadedModel>, JobError> {
        if let Some(at) = self.open.iter().position(|(id, _)| *id == model) {
            let entry = self.open.remove(at);
            let found = entry.1.clone();
            self.open.push(entry);
            return Ok(found);
        }
        let opened = Arc::new(self.load(model, Holding::Stored)?);
        if self.open.len() >= KEPT_OPEN {
            self.open.remove(0);
        }
        self.open.push((model, opened.clone()));
        Ok(opened)
    }

    /// A copy of the model for this job alone, to attach adapters to.
    ///
    /// # Errors
    /// As [`OpenModels::get`].
    pub fn fresh(&self, model: Fingerprint) -> Result<LoadedModel, JobError> {
        self.load(model, Holding::Floats)
    }

    fn load(&self, model: Fingerprint, holding: Holding) -> Result<LoadedModel, JobError> {
        let placement = Placement::new(holding, DType::F32, &self.device);
        Ok(LoadedModel::open(self.holdings.folder(model)?, placement)?)
    }

    /// The folder of a model.
    ///
    /// # Errors
    /// It is not here.
    pub fn folder(&self, model: Fingerprint) -> Result<&Path, JobError> {
        self.holdings.folder(model)
    }

    /// A folder for a job's files, gone with its handle.
    ///
    /// # Errors
    /// The disk's.
    pub fn scratch(&self) -> Result<tempfile::TempDir, JobError> {
        Ok(tempfile::tempdir_in(&self.scratch)?)
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

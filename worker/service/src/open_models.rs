//! The models in memory. Each is opened by plan for what it is to do, and those kept open fit into
//! the machine's budget together.

use crate::error::JobError;
use crate::holdings::Holdings;
use crate::planning::Machine;
use candle_core::DType;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uspx_domain::{DistilRecipe, Fingerprint};
use uspx_model::budget::{Beside, Plan, Workload};
use uspx_model::{Holding, LoadedModel, Placement};
use uspx_runtime::telemetry::TOLD;

/// The models of a machine, those open among them.
pub struct OpenModels {
    holdings: Holdings,
    machine: Machine,
    /// Bytes for all of them together, and for what runs.
    budget: u64,
    scratch: PathBuf,
    /// The one longest unused first.
    open: Vec<Open>,
    /// What it took to open models so far.
    opening: Duration,
}

/// A model that is kept open.
struct Open {
    model: Fingerprint,
    holding: Holding,
    dtype: DType,
    /// Bytes that it takes while another one runs.
    idle: u64,
    loaded: Arc<LoadedModel>,
}

/// A model at hand, and how it is to be run.
pub struct Opened {
    /// The model.
    pub model: Arc<LoadedModel>,
    /// The plan for its work.
    pub plan: Plan,
}

impl OpenModels {
    /// Nothing is open yet. `scratch` is where jobs put their files. What is free now counts, where
    /// the machine names no budget.
    pub fn new(holdings: Holdings, machine: Machine, scratch: PathBuf) -> Self {
        let (budget, open) = (machine.budget(), Vec::new());
        Self { holdings, machine, budget, scratch, open, opening: Duration::ZERO }
    }

    /// The model, opened for `work` if it is not. Those longest unused are closed where it does not
    /// fit beside them, or only with far smaller batches.
    ///
    /// # Errors
    /// It is not here, cannot be opened, or does not fit.
    pub fn get(&mut self, model: Fingerprint, work: Workload) -> Result<Opened, JobError> {
        self.get_beside(model, work, Beside::NOTHING)
    }

    /// The same with something else in memory while it works.
    ///
    /// # Errors
    /// As [`OpenModels::get`].
    pub fn get_beside(
        &mut self,
        model: Fingerprint,
        work: Workload,
        beside: Beside,
    ) -> Result<Opened, JobError> {
        let at = self.open.iter().position(|open| open.model == model);
        let own = at.map(|at| self.open.remove(at));
        let plan = match self.make_room(model, (work, beside)) {
            Ok(plan) => plan,
            Err(error) => {
                self.open.extend(own);
                return Err(error);
            }
        };
        let placement = self.machine.placement(&plan, work)?;
        let fits = |o: &Open| o.holding == plan.holding && o.dtype == placement.dtype;
        let mut open = match own.filter(fits) {
            Some(open) => open,
            None => self.opened(model, &plan, placement)?,
        };
        open.idle = plan.idle();
        // Another one may have been opened since: less is left for what is kept at boundaries.
        if let Some(model) = Arc::get_mut(&mut open.loaded) {
            model.transformer.set_boundaries(plan.boundaries);
        }
        let opened = Opened { model: open.loaded.clone(), plan };
        self.open.push(open);
        Ok(opened)
    }

    /// A copy of the model for this job alone, to attach adapters to; and the plan for its work.
    ///
    /// # Errors
    /// As [`OpenModels::get`].
    pub fn fresh(
        &mut self,
        model: Fingerprint,
        work: Workload,
    ) -> Result<(LoadedModel, Plan), JobError> {
        let plan = self.make_room(model, (work, Beside::NOTHING))?;
        let placement = self.machine.placement(&plan, work)?;
        Ok((self.load(model, &plan, placement)?, plan))
    }

    /// What training `model` by `recipe` is here.
    ///
    /// # Errors
    /// It is not here, or this machine cannot compute so.
    pub fn training(
        &self,
        model: Fingerprint,
        recipe: &DistilRecipe,
    ) -> Result<Workload, JobError> {
        Ok(self.machine.training(self.holdings.folder(model)?, recipe)?)
    }

    /// The plan for a student of `model` that is opened from its own files, and how to open it.
    ///
    /// # Errors
    /// `model` is not here, or 4 bits of its size do not fit.
    pub fn student(&mut self, model: Fingerprint) -> Result<(Placement, Plan), JobError> {
        let plan = self.make_room(model, (Workload::FourBit, Beside::NOTHING))?;
        Ok((self.machine.placement(&plan, Workload::FourBit)?, plan))
    }

    /// The plan for a model beside those open, after as many of them were closed as stand in its
    /// way.
    fn make_room(
        &mut self,
        model: Fingerprint,
        (work, beside): (Workload, Beside),
    ) -> Result<Plan, JobError> {
        let demands = &self.holdings.demands(model)?.with(beside);
        let alone = self.machine.plan(demands, work, self.budget)?;
        while !self.open.is_empty() {
            let taken: u64 = self.open.iter().map(|open| open.idle).sum();
            let left = self.budget.saturating_sub(taken);
            match self.machine.plan(demands, work, left) {
                Ok(plan) if plan.is_as_good_as(&alone) => return Ok(plan),
                _ => drop(self.open.remove(0)),
            }
        }
        Ok(alone)
    }

    fn opened(
        &mut self,
        model: Fingerprint,
        plan: &Plan,
        placement: Placement,
    ) -> Result<Open, JobError> {
        let (holding, dtype) = (placement.holding, placement.dtype);
        let loaded = Arc::new(self.load(model, plan, placement)?);
        Ok(Open { model, holding, dtype, idle: plan.idle(), loaded })
    }

    fn load(
        &mut self,
        model: Fingerprint,
        plan: &Plan,
        placement: Placement,
    ) -> Result<LoadedModel, JobError> {
        let folder = self.holdings.folder(model)?.display().to_string();
        tracing::info!(target: TOLD, "{folder}: {plan}");
        let start = Instant::now();
        let loaded = self.holdings.open(model, placement);
        self.opening += start.elapsed();
        loaded
    }

    /// The models that are kept open, the one longest unused first.
    pub fn kept(&self) -> Vec<Fingerprint> {
        self.open.iter().map(|open| open.model).collect()
    }

    /// How long models took to open so far: no part of the work's speed.
    pub fn opening(&self) -> Duration {
        self.opening
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
}

//! The real model, as a worker has it: what it answers to a piece of work on its prompts.

use crate::failed;
use std::path::Path;
use tempfile::TempDir;
use uspx_bench_engine::error::{BenchError, Result};
use uspx_domain::{
    Ablate, Cut, Fingerprint, LossRow, ModelShape, Outcome, Prompt, Task, TaskId, Work,
};
use uspx_model::NoProgress;
use uspx_worker::holdings::Holdings;
use uspx_worker::jobs::run;
use uspx_worker::open_models::OpenModels;
use uspx_worker::planning::Machine;
use uspx_worker::product::Inputs;

/// A model that is open.
pub struct Answers {
    models: OpenModels,
    inputs: Inputs,
    /// What it is.
    pub model: Fingerprint,
    /// Its dimensions.
    pub shape: ModelShape,
    /// Where its jobs write, gone with it.
    _scratch: TempDir,
}

impl Answers {
    /// Opens the model in a folder.
    ///
    /// # Errors
    /// One that is not there, or cannot be opened.
    pub fn open(folder: &Path) -> Result<Self> {
        let scratch = tempfile::tempdir().map_err(BenchError::file(folder))?;
        let holdings = Holdings::scan(&[folder.to_owned()]).map_err(failed)?;
        let held = holdings.report();
        let missing = || BenchError::Absent(format!("there is no model at {}", folder.display()));
        let (model, shape) =
            held.first().map(|m| (m.fingerprint, m.shape.clone())).ok_or_else(missing)?;
        let inputs = Inputs::new_in(scratch.path()).map_err(failed)?;
        let models = OpenModels::new(holdings, Machine::cpu(), scratch.path().to_owned());
        Ok(Self { models, inputs, model, shape, _scratch: scratch })
    }

    /// What it answers.
    ///
    /// # Errors
    /// Whatever keeps a worker from it.
    pub fn to(&mut self, work: Work<Prompt>) -> Result<Outcome> {
        let task = Task { id: TaskId::derived(b"bench"), epoch: 0, model: self.model, work };
        let done = run(&task, &mut self.models, &self.inputs, &NoProgress).map_err(failed)?;
        if let Some(left_out) = done.0.skipped.first() {
            return Err(BenchError::Unequal(format!("prompt {} is left out", left_out.id)));
        }
        Ok(done.0.outcome)
    }

    /// Losses of the whole model, then under each cut.
    ///
    /// # Errors
    /// As [`Answers::to`].
    pub fn under(&mut self, prompts: &[Prompt], cuts: Vec<Cut>) -> Result<Vec<LossRow>> {
        match self.to(Work::Ablate(Ablate { prompts: prompts.to_vec(), cuts }))? {
            Outcome::Losses(rows) => Ok(rows),
            other => Err(BenchError::Unequal(format!("{other:?} is no losses"))),
        }
    }
}

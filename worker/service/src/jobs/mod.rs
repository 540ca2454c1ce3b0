//! How each kind of job runs, one a file. What it is, names and checks stands in
//! `shared/domain/src/work/`, under the same name.

mod ablate;
mod distil;
mod estimate;
mod export;
mod judge;
mod label;

use crate::error::JobError;
use crate::holdings::OpenModels;
use crate::product::{Inputs, Product};
use std::sync::Arc;
use uspx_domain::{BlobRef, Fingerprint, Prompt, Task, Work};
use uspx_model::{LoadedModel, Progress};

/// What a job has at hand.
pub struct Workbench<'a> {
    /// The task's model.
    pub model: Fingerprint,
    /// The models of this machine.
    pub models: &'a mut OpenModels,
    /// The blobs that the job names.
    pub inputs: &'a Inputs,
    /// Tokens run together.
    pub batch_tokens: usize,
    /// Told of progress; says when to stop.
    pub progress: &'a dyn Progress,
}

impl Workbench<'_> {
    /// The task's model, opened.
    fn model(&mut self) -> Result<Arc<LoadedModel>, JobError> {
        self.models.get(self.model)
    }

    /// The task's model for this job alone, with an adapter attached.
    fn adapted(&self, adapter: Option<&BlobRef>) -> Result<LoadedModel, JobError> {
        let mut student = self.models.fresh(self.model)?;
        if let Some(blob) = adapter {
            uspx_distill::load_adapter(&mut student, &self.inputs.get(blob)?)?;
        }
        Ok(student)
    }
}

/// A job that can be run.
trait Run {
    /// Runs it.
    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError>;
}

/// The work as something to run.
fn runner(work: &Work<Prompt>) -> &dyn Run {
    match work {
        Work::Estimate(job) => job,
        Work::Ablate(job) => job,
        Work::Label(job) => job,
        Work::Distil(job) => job,
        Work::Export(job) => job,
        Work::Judge(job) => job,
    }
}

/// Does a task.
///
/// # Errors
/// Whatever kept it from being done.
pub fn run(
    task: &Task,
    models: &mut OpenModels,
    inputs: &Inputs,
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Product, JobError> {
    runner(&task.work).run(&mut Workbench {
        model: task.model,
        models,
        inputs,
        batch_tokens,
        progress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holdings::Holdings;
    use bytes::Bytes;
    use candle_core::Device;
    use uspx_domain::{Digest, Outcome, StoredFile};
    use uspx_model::NoProgress;

    /// A job for tests: what adding one takes here, besides its arm in `runner`.
    struct Example(BlobRef);

    impl Run for Example {
        fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
            let content = bench.inputs.get(&self.0)?;
            let files = vec![StoredFile { path: "copy".into(), blob: BlobRef::to(&content) }];
            Ok(Product::with_blob(Outcome::Exported { files }, content))
        }
    }

    #[test]
    fn a_kind_of_job_runs_from_one_module() {
        let (input, model) = (Bytes::from_static(b"input"), Fingerprint(Digest::of(b"model")));
        let blob = BlobRef::to(&input);
        let scratch = tempfile::tempdir().unwrap();
        let mut inputs = Inputs::new_in(scratch.path()).unwrap();
        std::fs::write(inputs.place(blob).unwrap(), &input).unwrap();
        let folder = scratch.path().to_owned();
        let models = &mut OpenModels::new(Holdings::default(), Device::Cpu, folder);
        let progress = &NoProgress;
        let mut bench = Workbench { model, models, inputs: &inputs, batch_tokens: 64, progress };
        let product = Example(blob).run(&mut bench).unwrap();
        assert_eq!(product.outcome.blobs(), [blob]);
        assert!(Example(BlobRef::to(b"other")).run(&mut bench).is_err());
    }
}

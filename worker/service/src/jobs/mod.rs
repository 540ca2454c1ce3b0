//! How each kind of job runs, one a file. What it is, names and checks stands in
//! `shared/domain/src/work/`, under the same name.

mod ablate;
mod distil;
mod estimate;
mod export;
mod judge;
mod label;
mod part;
mod sae;

use crate::error::JobError;
use crate::open_models::{OpenModels, Opened};
use crate::product::{Inputs, Product, Ran};
use std::time::{Duration, Instant};
use uspx_distill::{Labels, PromptLabels};
use uspx_domain::{BlobRef, Fingerprint, Prompt, SkipGroup, Speed, Task, TaskId, Work};
use uspx_model::budget::{Beside, Plan, Workload};
use uspx_model::{Holding, LoadedModel, Progress, Readable};

/// What a job has at hand.
pub struct Workbench<'a> {
    /// The task's model.
    pub model: Fingerprint,
    /// The models of this machine.
    pub models: &'a mut OpenModels,
    /// The blobs that the job names.
    pub inputs: &'a Inputs,
    /// Told of progress; says when to stop.
    pub progress: &'a dyn Progress,
    /// How the model at work is run.
    pub plan: Option<Plan>,
}

impl Workbench<'_> {
    /// The task's model, opened for `work`.
    fn model(&mut self, work: Workload) -> Result<Opened, JobError> {
        self.model_beside(work, Beside::NOTHING)
    }

    /// The same with something else in memory while it works.
    fn model_beside(&mut self, work: Workload, beside: Beside) -> Result<Opened, JobError> {
        let opened = self.models.get_beside(self.model, work, beside)?;
        self.at_work(&opened.model, &opened.plan);
        Ok(opened)
    }

    /// The task's model for this job alone.
    fn fresh(&mut self, work: Workload) -> Result<(LoadedModel, Plan), JobError> {
        let (student, plan) = self.models.fresh(self.model, work)?;
        self.at_work(&student, &plan);
        Ok((student, plan))
    }

    /// The same with an adapter attached.
    fn adapted(
        &mut self,
        adapter: Option<&BlobRef>,
        work: Workload,
    ) -> Result<(LoadedModel, Plan), JobError> {
        let (mut student, plan) = self.fresh(work)?;
        if let Some(blob) = adapter {
            uspx_distill::load_adapter(&mut student, &self.inputs.get(blob)?)?;
        }
        Ok((student, plan))
    }

    /// The labels in these blobs.
    fn labels(&self, blobs: &[BlobRef]) -> Result<Vec<Labels>, JobError> {
        blobs.iter().map(|blob| Ok(Labels::from_bytes(&self.inputs.get(blob)?)?)).collect()
    }

    /// The prompts and answers in these blobs, without what a teacher says of them: that takes most of the room.
    fn texts(&self, blobs: &[BlobRef]) -> Result<Vec<PromptLabels>, JobError> {
        let mut all = Vec::new();
        for blob in blobs {
            let labels = Labels::from_bytes(&self.inputs.get(blob)?)?.prompts;
            all.extend(labels.into_iter().map(|l| PromptLabels { tokens: Vec::new(), ..l }));
        }
        Ok(all)
    }

    /// A model goes to work by a plan.
    fn at_work(&mut self, model: &LoadedModel, plan: &Plan) {
        self.progress.follow(model.transformer.watch());
        self.plan = Some(plan.clone());
    }
}

/// The prompts that a model can run, unless it can run none of them.
fn some_readable(model: &LoadedModel, prompts: &[Prompt]) -> Result<Readable, JobError> {
    let found = model.readable(prompts)?;
    match SkipGroup::of(&found.skipped).first() {
        Some(group) if found.sequences.is_empty() => Err(JobError::NoPromptLeft(group.clone())),
        _ => Ok(found),
    }
}

/// A job that can be run.
trait Run {
    /// What its model does.
    fn workload(&self) -> Workload;

    /// What is in memory beside it.
    fn beside(&self) -> Beside {
        Beside::NOTHING
    }

    /// Whether it keeps a state for when it is interrupted.
    fn keeps_state(&self) -> bool {
        false
    }

    /// The name of what it keeps for others like it, where it does: on this machine alone.
    fn remembers(&self, _model: Fingerprint) -> Option<TaskId> {
        None
    }

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
        Work::Sae(job) => job,
        Work::Part(job) => job,
    }
}

/// What the model of some work does, and what is in memory beside it: it is opened for that.
pub fn workload(work: &Work<Prompt>) -> (Workload, Beside) {
    (runner(work).workload(), runner(work).beside())
}

/// Whether some work keeps a state for when it is interrupted.
pub fn keeps_state(work: &Work<Prompt>) -> bool {
    runner(work).keeps_state()
}

/// The name of what a task keeps for others like it, on this machine alone; none where it keeps nothing.
pub fn remembers(task: &Task) -> Option<TaskId> {
    runner(&task.work).remembers(task.model)
}

/// Does a task, and says how fast.
///
/// # Errors
/// Whatever kept it from being done.
pub fn run(
    task: &Task,
    models: &mut OpenModels,
    inputs: &Inputs,
    progress: &dyn Progress,
) -> Result<(Product, Option<Speed>), JobError> {
    let (start, opening) = (Instant::now(), models.opening());
    let mut bench = Workbench { model: task.model, models, inputs, progress, plan: None };
    let product = runner(&task.work).run(&mut bench)?;
    let opening = bench.models.opening() - opening;
    let took = start.elapsed().saturating_sub(opening);
    let speed = bench.plan.and_then(|plan| speed(task, product.ran, &plan, took));
    Ok((product, speed))
}

/// The speed of what was run; none where nothing was, or of work that is not about prompts.
fn speed(task: &Task, ran: Ran, plan: &Plan, took: Duration) -> Option<Speed> {
    let speed = Speed {
        model: task.model,
        work: task.work.name().to_owned(),
        tokens_per_second: ran.tokens as f64 / took.as_secs_f64(),
        prompt_tokens: ran.tokens as f64 / ran.prompts as f64,
        batch_tokens: u32::try_from(plan.batch_tokens).unwrap_or(u32::MAX),
        streamed: plan.holding == Holding::Streamed,
    };
    Some(speed).filter(Speed::is_possible)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holdings::Holdings;
    use crate::planning::Machine;
    use bytes::Bytes;
    use uspx_domain::{Digest, Outcome, StoredFile};
    use uspx_model::NoProgress;

    /// A job for tests: what adding one takes here, besides its arm in `runner`.
    struct Example(BlobRef);

    impl Run for Example {
        fn workload(&self) -> Workload {
            Workload::Forward
        }

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
        let models = &mut OpenModels::new(Holdings::default(), Machine::cpu(), folder);
        let progress = &NoProgress;
        let mut bench = Workbench { model, models, inputs: &inputs, progress, plan: None };
        let product = Example(blob).run(&mut bench).unwrap();
        assert_eq!(product.outcome.blobs(), [blob]);
        assert!(Example(BlobRef::to(b"other")).run(&mut bench).is_err());
    }
}

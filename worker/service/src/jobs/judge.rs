//! Judges a model, an adapted one, or an exported student opened from its files.

use super::{Run, Workbench, export};
use crate::error::JobError;
use crate::open_models::Opened;
use crate::product::Product;
use uspx_domain::{Judge, Outcome, Prompt, Subject};
use uspx_model::LoadedModel;
use uspx_model::budget::{Plan, Workload};
use uspx_model::taps::NoTaps;
use uspx_probe::evaluate::{Against, evaluate};

impl Run for Judge<Prompt> {
    fn workload(&self) -> Workload {
        match self.subject {
            Subject::Model => Workload::Forward,
            Subject::Adapted(_) | Subject::Exported { .. } => Workload::Floats,
        }
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        match &self.subject {
            Subject::Model => {
                let Opened { model, plan } = bench.model(self.workload())?;
                losses(&model, &self.prompts, &plan, bench)
            }
            Subject::Adapted(blob) => {
                let (student, plan) = bench.adapted(Some(blob), self.workload())?;
                losses(&student, &self.prompts, &plan, bench)
            }
            Subject::Exported { format, files } => {
                let (placement, plan) = bench.models.student(bench.model)?;
                let scratch = bench.models.scratch()?;
                let student = export::open(*format, files, bench.inputs, &scratch, placement)?;
                bench.at_work(&student, &plan);
                losses(&student, &self.prompts, &plan, bench)
            }
        }
    }
}

fn losses(
    model: &LoadedModel,
    prompts: &[Prompt],
    plan: &Plan,
    bench: &Workbench<'_>,
) -> Result<Product, JobError> {
    let prompts = model.readable(prompts)?;
    let (tokens, progress) = (plan.batch_tokens, bench.progress);
    let found = evaluate(model, &prompts, tokens, &mut NoTaps, &Against::Nothing, progress)?;
    Ok(Product::measured(Outcome::Losses(vec![found.losses]), prompts))
}

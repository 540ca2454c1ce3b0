//! Judges a model, an adapted one, or an exported student opened from its files: its losses, and its own
//! answers.

use super::{Run, Workbench, export};
use crate::error::JobError;
use crate::open_models::Opened;
use crate::product::Product;
use uspx_domain::{Answers, Judge, LossRow, Outcome, Prompt, Subject};
use uspx_model::LoadedModel;
use uspx_model::budget::{Plan, Workload};
use uspx_model::chat::Bounds;
use uspx_model::taps::NoTaps;
use uspx_probe::answered::{Answered, answered};
use uspx_probe::evaluate::{Against, evaluate};

impl Run for Judge<Prompt> {
    fn workload(&self) -> Workload {
        match self.subject {
            Subject::Model => Workload::Forward,
            Subject::Adapted(_) => Workload::Adapted,
            Subject::Exported { .. } => Workload::FourBit,
        }
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        match &self.subject {
            Subject::Model => {
                let Opened { model, plan } = bench.model(self.workload())?;
                judged(&model, self, &plan, bench)
            }
            Subject::Adapted(blob) => {
                let (student, plan) = bench.adapted(Some(blob), self.workload())?;
                judged(&student, self, &plan, bench)
            }
            Subject::Exported { format, files } => {
                let (placement, plan) = bench.models.student(bench.model)?;
                let scratch = bench.models.scratch()?;
                let student = export::open(*format, files, bench.inputs, &scratch, placement)?;
                bench.at_work(&student, &plan);
                judged(&student, self, &plan, bench)
            }
        }
    }
}

/// The losses, and where they are asked for the answers: first, for these take longer, so that a
/// rehearsal sees them. A model whose weights are read from their file gives none: every token would
/// read all of them.
fn judged(
    model: &LoadedModel,
    job: &Judge<Prompt>,
    plan: &Plan,
    bench: &Workbench<'_>,
) -> Result<Product, JobError> {
    let prompts = model.readable(&job.prompts)?;
    let (tokens, progress) = (plan.batch_tokens, bench.progress);
    let answers = match job.answers.is_none() || model.transformer.is_streamed() {
        true => Answered::default(),
        false => {
            let Answers { tokens: answer, reasoning } = job.answers;
            let bounds = Bounds { answer: answer as usize, reasoning: reasoning as usize };
            answered(model, &prompts.prompts, (bounds, plan.room), &mut NoTaps, progress)?
        }
    };
    let found = evaluate(model, &prompts, tokens, &mut NoTaps, &Against::Nothing, progress)?;
    let Answered { right, pace } = answers;
    let row = LossRow { right, pace, ..found.losses };
    Ok(Product::measured(Outcome::Losses(vec![row]), prompts))
}

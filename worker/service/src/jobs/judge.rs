//! Judges a model, an adapted one, or an exported student opened from its files.

use super::{Run, Workbench, export};
use crate::error::JobError;
use crate::product::Product;
use uspx_domain::{Judge, Outcome, Prompt, Subject};
use uspx_model::LoadedModel;
use uspx_model::taps::NoTaps;
use uspx_probe::evaluate::{Against, evaluate};

impl Run for Judge<Prompt> {
    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        match &self.subject {
            Subject::Model => {
                let model = bench.model()?;
                losses(&model, &self.prompts, bench)
            }
            Subject::Adapted(blob) => losses(&bench.adapted(Some(blob))?, &self.prompts, bench),
            Subject::Exported { format, files } => {
                let device = bench.models.device();
                let scratch = bench.models.scratch()?;
                let student = export::open(*format, files, bench.inputs, &scratch, device)?;
                losses(&student, &self.prompts, bench)
            }
        }
    }
}

fn losses(
    model: &LoadedModel,
    prompts: &[Prompt],
    bench: &Workbench<'_>,
) -> Result<Product, JobError> {
    let prompts = model.readable(prompts)?;
    let (tokens, progress) = (bench.batch_tokens, bench.progress);
    let found = evaluate(model, &prompts, tokens, &mut NoTaps, &Against::Nothing, progress)?;
    Ok(Product::measured(Outcome::Losses(vec![found.losses]), prompts))
}

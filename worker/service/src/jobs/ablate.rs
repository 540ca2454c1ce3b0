//! Losses under cuts.

use super::{Run, Workbench};
use crate::error::JobError;
use crate::open_models::Opened;
use crate::product::Product;
use uspx_domain::{Ablate, Outcome, Prompt};
use uspx_model::budget::Workload;
use uspx_probe::ablate::ablate;

impl Run for Ablate<Prompt> {
    fn workload(&self) -> Workload {
        Workload::Forward
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let Opened { model, plan } = bench.model(self.workload())?;
        let prompts = model.readable(&self.prompts)?;
        let rows = ablate(&model, &prompts, &self.cuts, plan.batch_tokens, bench.progress)?;
        Ok(Product::measured(Outcome::Losses(rows), prompts))
    }
}

//! Losses under cuts.

use super::{Run, Workbench};
use crate::error::JobError;
use crate::product::Product;
use uspx_domain::{Ablate, Outcome, Prompt};
use uspx_probe::ablate::ablate;

impl Run for Ablate<Prompt> {
    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let model = bench.model()?;
        let prompts = model.readable(&self.prompts)?;
        let rows = ablate(&model, &prompts, &self.cuts, bench.batch_tokens, bench.progress)?;
        Ok(Product::measured(Outcome::Losses(rows), prompts))
    }
}

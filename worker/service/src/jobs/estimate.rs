//! Measures single units by the estimator that the task names.

use super::{Run, Workbench};
use crate::error::JobError;
use crate::product::Product;
use uspx_domain::{Estimate, Outcome, Prompt};
use uspx_probe::{ProbeRequest, measure};

impl Run for Estimate<Prompt> {
    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let model = bench.model()?;
        let prompts = model.readable(&self.prompts)?;
        let request = ProbeRequest {
            kinds: &self.kinds,
            baseline: self.baseline,
            ..ProbeRequest::all(self.estimator, &model, &prompts, bench.batch_tokens)
        };
        let deposit = measure(self.estimator, &request, bench.progress)?;
        Ok(Product::measured(Outcome::Scores(deposit), prompts))
    }
}

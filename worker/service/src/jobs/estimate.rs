//! Measures single units by the estimator that the task names.

use super::{Run, Workbench};
use crate::error::JobError;
use crate::open_models::Opened;
use crate::product::Product;
use uspx_domain::{Estimate, Needs, Outcome, Prompt};
use uspx_model::budget::Workload;
use uspx_probe::{ProbeRequest, measure};

impl Run for Estimate<Prompt> {
    fn workload(&self) -> Workload {
        match self.estimator.row().needs {
            Needs::Forward => Workload::Forward,
            Needs::Gradients => Workload::Backward,
        }
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let Opened { model, plan } = bench.model(self.workload())?;
        let prompts = model.readable(&self.prompts)?;
        let request = ProbeRequest {
            kinds: &self.kinds,
            baseline: self.baseline,
            ..ProbeRequest::all(self.estimator, &model, &prompts, plan.batch_tokens)
        };
        let deposit = measure(self.estimator, &request, bench.progress)?;
        Ok(Product::measured(Outcome::Scores(deposit), prompts))
    }
}

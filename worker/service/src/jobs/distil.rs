//! Trains an adapter for the student from labels. Its state is kept for when it is interrupted.

use super::{Run, Workbench};
use crate::error::JobError;
use crate::product::Product;
use bytes::Bytes;
use uspx_distill::{DistilRequest, DistillError, Distilled, Keep, distil};
use uspx_domain::{BlobRef, Distil, Outcome};
use uspx_model::budget::Workload;
use uspx_model::{LoadedModel, Progress};
use uspx_runtime::telemetry::TOLD;

impl Run for Distil {
    fn workload(&self) -> Workload {
        let (batch_tokens, rank) = (self.recipe.batch_tokens as usize, self.recipe.rank as usize);
        Workload::Training { batch_tokens, rank }
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let work = bench.models.training(bench.model, &self.recipe)?;
        let (mut student, _) = bench.fresh(work)?;
        let (train, validation) = (bench.labels(&self.train)?, bench.labels(&self.validation)?);
        let keep = bench.inputs.kept().map(|kept| Keep { file: &kept.file, every: kept.every });
        let request =
            DistilRequest { keep, ..DistilRequest::new(&train, &validation, &self.recipe) };
        let made = trained(&mut student, &request, bench.progress)?;
        if made.resumed > 0 {
            tracing::info!(target: TOLD, "a training goes on after step {}", made.resumed);
        }
        Ok(adapter(made))
    }
}

/// What a training brought.
pub(super) fn adapter(Distilled { adapter, summary, .. }: Distilled) -> Product {
    let adapter = Bytes::from(adapter);
    let outcome = Outcome::Adapter { blob: BlobRef::to(&adapter), summary };
    Product::with_blob(outcome, adapter)
}

/// Trains, from the state that is kept where there is one of this very training.
fn trained(
    student: &mut LoadedModel,
    request: &DistilRequest<'_>,
    progress: &dyn Progress,
) -> Result<Distilled, DistillError> {
    match distil(student, request, progress) {
        Err(error @ DistillError::State { .. }) => {
            tracing::warn!(%error, "a training begins anew");
            if let Some(keep) = request.keep {
                // What cannot be deleted is refused once more.
                let _ = std::fs::remove_file(keep.file);
            }
            distil(student, request, progress)
        }
        outcome => outcome,
    }
}

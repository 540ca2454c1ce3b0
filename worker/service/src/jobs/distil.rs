//! Trains an adapter for the student from labels.

use super::{Run, Workbench};
use crate::error::JobError;
use crate::product::Product;
use bytes::Bytes;
use uspx_distill::Labels;
use uspx_domain::{BlobRef, Distil, Outcome};
use uspx_model::budget::Workload;

impl Run for Distil {
    fn workload(&self) -> Workload {
        Workload::Training { batch_tokens: self.recipe.batch_tokens as usize }
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let (mut student, _) = bench.fresh(self.workload())?;
        let read = |blobs: &[BlobRef]| -> Result<Vec<Labels>, JobError> {
            blobs.iter().map(|b| Ok(Labels::from_bytes(&bench.inputs.get(b)?)?)).collect()
        };
        let (train, validation) = (read(&self.train)?, read(&self.validation)?);
        let trained =
            uspx_distill::distil(&mut student, &train, &validation, &self.recipe, bench.progress);
        let (adapter, summary) = trained?;
        let adapter = Bytes::from(adapter);
        let outcome = Outcome::Adapter { blob: BlobRef::to(&adapter), summary };
        Ok(Product::with_blob(outcome, adapter))
    }
}

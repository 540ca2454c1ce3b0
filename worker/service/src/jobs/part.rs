//! A machine's part of a shared training, or the training's end. What the machine keeps from round to round lies
//! beside the states of long jobs.

use super::{Run, Workbench};
use crate::error::JobError;
use crate::product::Product;
use bytes::Bytes;
use uspx_distill::Sharing;
use uspx_distill::together::Told;
use uspx_distill::together::part::{self, PartRequest, Said};
use uspx_domain::{self as domain, BlobRef, Fingerprint, Outcome, Part, Place, TaskId};
use uspx_model::budget::Workload;

impl Run for Part {
    fn workload(&self) -> Workload {
        let (batch_tokens, rank) = (self.recipe.batch_tokens as usize, self.recipe.rank as usize);
        Workload::Training { batch_tokens, rank }
    }

    /// A training is what is learned by whom, and how it is shared, whatever the round.
    fn remembers(&self, model: Fingerprint) -> Option<TaskId> {
        let Part { train, validation, recipe, steps, .. } = self;
        let training = (model, train, validation, recipe, steps);
        serde_json::to_vec(&training).ok().map(|bytes| TaskId::derived(&bytes))
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let work = bench.models.training(bench.model, &self.recipe)?;
        let (mut student, _) = bench.fresh(work)?;
        let (train, validation) = (bench.labels(&self.train)?, bench.labels(&self.validation)?);
        let rounds = self.rounds.iter().map(|round| told_in(round, bench));
        let rounds = rounds.collect::<Result<Vec<_>, JobError>>()?;
        let (train, validation) = (train.as_slice(), validation.as_slice());
        let sharing = Sharing { steps: self.steps as usize, ..Sharing::among(1) };
        let (recipe, rounds) = (&self.recipe, rounds.as_slice());
        let request = PartRequest { train, validation, recipe, sharing, rounds };
        match self.place {
            Place::Machine { at, of } => {
                let place = ((at as usize, of as usize), bench.inputs.memory());
                let said = part::take_part(&mut student, &request, place, bench.progress)?;
                Ok(told(said))
            }
            Place::End => {
                let made = part::end(&mut student, &request, bench.progress)?;
                Ok(super::distil::adapter(made))
            }
        }
    }
}

/// What was told in a round.
fn told_in(round: &domain::Round, bench: &Workbench<'_>) -> Result<(usize, Vec<Told>), JobError> {
    let one = |told: &domain::Told| -> Result<Told, JobError> {
        Ok(Told { bytes: bench.inputs.get(&told.blob)?.to_vec(), tokens: told.tokens })
    };
    Ok((round.machines as usize, round.told.iter().map(one).collect::<Result<_, _>>()?))
}

fn told(Said { told, loss, epoch, left }: Said) -> Product {
    let bytes = Bytes::from(told.bytes);
    let told = domain::Told { blob: BlobRef::to(&bytes), tokens: told.tokens };
    Product::with_blob(Outcome::Told { told, loss, epoch, left }, bytes)
}

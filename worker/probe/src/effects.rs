//! First-order effects of units while they are added up: signed, and made positive per token, in
//! nats summed over all positions of a prompt.

use crate::Result;
use crate::batching::each_batch;
use crate::estimators::ProbeRequest;
use crate::sums::UnitSums;
use uspx_domain::{Deposit, Estimator, Unit, UnitKind};
use uspx_model::Progress;
use uspx_model::batch::Batch;

/// Adds a batch's effects; the numbers are its members' among all sequences.
type AddBatch<'a> = &'a mut dyn FnMut(&[usize], &Batch, &mut Effects) -> Result<()>;

/// All that is requested, batch by batch.
///
/// # Errors
/// Those of `add`; a stop by the keeper.
pub(crate) fn effects(
    request: &ProbeRequest<'_>,
    (estimator, batch_tokens): (Estimator, usize),
    progress: &dyn Progress,
    add: AddBatch<'_>,
) -> Result<Deposit> {
    let sequences = &request.prompts.sequences;
    let mut effects = Effects::new(request, estimator);
    let (mut done, total) = (0, sequences.len() as u64);
    let mut each = |members: &[usize], batch: &Batch| {
        let mut found = effects.blank(members.len());
        add(members, batch, &mut found)?;
        effects.take(&found, members);
        done += members.len() as u64;
        progress.report(done, total)
    };
    each_batch(sequences, batch_tokens, Batch::new, &mut each)?;
    Ok(effects.deposit(request))
}

/// Sums of each kind that is asked for.
pub(crate) struct Effects(Vec<(UnitKind, UnitSums)>);

impl Effects {
    /// Nothing yet, of all that is requested. The estimator's statistics are the signed effect and
    /// the positive one.
    fn new(request: &ProbeRequest<'_>, estimator: Estimator) -> Self {
        let (shape, prompts) = (request.model.shape(), request.prompts.sequences.len());
        let statistics = estimator.row().statistics;
        let of = |kind: &UnitKind| {
            (*kind, UnitSums::new((*kind, statistics), &shape, &request.layers, prompts))
        };
        Self(request.kinds.iter().map(of).collect())
    }

    /// Nothing yet, of so many prompts.
    fn blank(&self, prompts: usize) -> Self {
        Self(self.0.iter().map(|(kind, sums)| (*kind, sums.blank(prompts))).collect())
    }

    /// Puts a batch's sums at the places of its prompts.
    fn take(&mut self, batch: &Self, members: &[usize]) {
        let both = self.0.iter_mut().zip(&batch.0);
        both.for_each(|((_, into), (_, from))| into.take(from, members));
    }

    /// Adds a token's effect. A kind that is not asked for is passed over.
    pub(crate) fn add(&mut self, unit: Unit, prompt: u32, effect: f64) {
        let Some((_, sums)) = self.0.iter_mut().find(|(kind, _)| *kind == unit.kind) else {
            return;
        };
        let place = (unit.layer as usize, unit.index);
        sums.add(place, prompt as usize, [effect, effect.abs()]);
    }

    /// All that was found, as a deposit.
    fn deposit(&self, request: &ProbeRequest<'_>) -> Deposit {
        let mut deposit = request.deposit();
        self.0.iter().for_each(|(_, sums)| sums.tell(&request.tokens(), &mut deposit));
        deposit
    }
}

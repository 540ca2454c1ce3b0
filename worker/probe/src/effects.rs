//! First-order effects of units while they are added up: signed, and made positive per token, in
//! nats summed over all positions of a prompt.

use crate::Result;
use crate::batching::each_batch;
use crate::estimators::ProbeRequest;
use crate::running::RunningMoments;
use crate::sums::UnitSums;
use candle_core::Tensor;
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
pub(crate) struct Effects {
    /// Of kinds with few units, prompt by prompt.
    few: Vec<(UnitKind, UnitSums)>,
    /// Of those with many.
    many: Vec<(UnitKind, RunningMoments)>,
}

impl Effects {
    /// Nothing yet, of all that is requested. The estimator's statistics are the signed effect and
    /// the positive one.
    fn new(request: &ProbeRequest<'_>, estimator: Estimator) -> Self {
        let (shape, prompts) = (request.model.shape(), request.prompts.sequences.len());
        let statistics = estimator.row().statistics;
        let (many, few): (Vec<UnitKind>, Vec<UnitKind>) =
            request.kinds.iter().partition(|kind| kind.is_large());
        let few = few.into_iter().map(|kind| {
            (kind, UnitSums::new((kind, statistics), &shape, &request.layers, prompts))
        });
        let many = many
            .into_iter()
            .map(|kind| (kind, RunningMoments::new((kind, statistics), &shape, &request.layers)));
        Self { few: few.collect(), many: many.collect() }
    }

    /// Nothing yet, of so many prompts.
    fn blank(&self, prompts: usize) -> Self {
        Self {
            few: self.few.iter().map(|(kind, sums)| (*kind, sums.blank(prompts))).collect(),
            many: self.many.iter().map(|(kind, sums)| (*kind, sums.blank())).collect(),
        }
    }

    /// Takes a batch's sums, at the places of its prompts.
    fn take(&mut self, batch: &Self, members: &[usize]) {
        let few = self.few.iter_mut().zip(&batch.few);
        few.for_each(|((_, into), (_, from))| into.take(from, members));
        let many = self.many.iter_mut().zip(&batch.many);
        many.for_each(|((_, into), (_, from))| into.take(from));
    }

    /// Adds the effects of a layer's units from `first` on, of a kind with many of them: all that
    /// each prompt has, signed and made positive per token, both `[P, units]`; `tokens` are the
    /// prompts' response tokens.
    pub(crate) fn add_many(
        &mut self,
        kind: UnitKind,
        (layer, first): (usize, usize),
        both: [&Tensor; 2],
        tokens: &[u32],
    ) -> Result<()> {
        let Some((_, sums)) = self.many.iter_mut().find(|(k, _)| *k == kind) else {
            return Ok(());
        };
        for (statistic, values) in both.into_iter().enumerate() {
            sums.add((layer, first, statistic), values, tokens)?;
        }
        Ok(())
    }

    /// Adds a token's effect. A kind that is not asked for is passed over.
    pub(crate) fn add(&mut self, unit: Unit, prompt: u32, effect: f64) {
        let Some((_, sums)) = self.few.iter_mut().find(|(kind, _)| *kind == unit.kind) else {
            return;
        };
        let place = (unit.layer as usize, unit.index);
        sums.add(place, prompt as usize, [effect, effect.abs()]);
    }

    /// All that was found, as a deposit.
    fn deposit(&self, request: &ProbeRequest<'_>) -> Deposit {
        let mut deposit = request.deposit();
        self.few.iter().for_each(|(_, sums)| sums.tell(&request.tokens(), &mut deposit));
        self.many.iter().for_each(|(_, sums)| sums.tell(&mut deposit));
        deposit
    }
}

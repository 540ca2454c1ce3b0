//! What a trace adds up.

use super::CoActivation;
use crate::estimators::ProbeRequest;
use crate::running::RunningMoments;
use crate::statistics::{CHANNEL, EXPERT, HEAD, OfToken, named};
use crate::sums::UnitSums;
use uspx_domain::{Deposit, UnitKind};

/// Sums of the kinds that are asked for.
pub(super) struct Sums {
    pub(super) experts: UnitSums,
    pub(super) heads: UnitSums,
    /// Of each kind of channel that is asked for.
    channels: Vec<(UnitKind, RunningMoments)>,
    /// Of each layer; empty where it is not asked for.
    pub(super) together: CoActivation,
}

impl Sums {
    /// Nothing yet.
    pub(super) fn new(request: &ProbeRequest<'_>, co_activation: bool) -> Self {
        let (shape, prompts) = (request.model.shape(), request.prompts.sequences.len());
        let layers = |kind| if request.wants(kind) { request.layers.clone() } else { 0..0 };
        let moments = |kind: &UnitKind| {
            let of = (*kind, &named(CHANNEL)[..]);
            (*kind, RunningMoments::new(of, &shape, &request.layers))
        };
        let table = |experts: u32| vec![vec![0; experts as usize]; experts as usize];
        let tables = || shape.widths(UnitKind::Expert).into_iter().map(table).collect();
        Self {
            experts: few((UnitKind::Expert, EXPERT), &shape, &layers(UnitKind::Expert), prompts),
            heads: few((UnitKind::Head, HEAD), &shape, &layers(UnitKind::Head), prompts),
            channels: request.kinds.iter().filter(|kind| kind.is_large()).map(moments).collect(),
            together: if co_activation { tables() } else { Vec::new() },
        }
    }

    /// The same, nothing yet, of so many prompts.
    pub(super) fn blank(&self, prompts: usize) -> Self {
        let zeros = |table: &Vec<Vec<u64>>| vec![vec![0; table.len()]; table.len()];
        Self {
            experts: self.experts.blank(prompts),
            heads: self.heads.blank(prompts),
            channels: self.channels.iter().map(|(kind, sums)| (*kind, sums.blank())).collect(),
            together: self.together.iter().map(zeros).collect(),
        }
    }

    /// Takes a batch's sums, at the places of its prompts.
    pub(super) fn take(&mut self, batch: &Self, members: &[usize]) {
        self.experts.take(&batch.experts, members);
        self.heads.take(&batch.heads, members);
        let channels = self.channels.iter_mut().zip(&batch.channels);
        channels.for_each(|((_, into), (_, from))| into.take(from));
        let tables = self.together.iter_mut().flatten().flatten();
        tables
            .zip(batch.together.iter().flatten().flatten())
            .for_each(|(into, from)| *into += from);
    }

    /// Sums of a kind with very many units, where it is asked for.
    pub(super) fn of_channels(&mut self, kind: UnitKind) -> Option<&mut RunningMoments> {
        self.channels.iter_mut().find(|(k, _)| *k == kind).map(|(_, sums)| sums)
    }

    /// Whether channels of that kind are asked for.
    pub(super) fn wants(&self, kind: UnitKind) -> bool {
        self.channels.iter().any(|(k, _)| *k == kind)
    }

    /// Adds what was found to a deposit on prompts of so many tokens.
    pub(super) fn tell(&self, tokens: &[u32], deposit: &mut Deposit) {
        self.experts.tell(tokens, deposit);
        self.heads.tell(tokens, deposit);
        self.channels.iter().for_each(|(_, sums)| sums.tell(deposit));
    }
}

fn few<T>(
    (kind, statistics): (UnitKind, &[OfToken<T>]),
    shape: &uspx_domain::ModelShape,
    layers: &std::ops::Range<u32>,
    prompts: usize,
) -> UnitSums {
    UnitSums::new((kind, &named(statistics)), shape, layers, prompts)
}

//! Exact effects of single units: the change of each prompt's loss when the unit is cut.

use super::{Measure, ProbeRequest};
use crate::Result;
use crate::ablate::ablate_sequences;
use crate::sums::UnitSums;
use uspx_domain::{Cut, Deposit, Estimator, Statistic, Unit, UnitKind};
use uspx_model::Progress;

/// Cuts each unit alone, in nats summed over a prompt's response.
pub(super) struct Exact;

impl Measure for Exact {
    fn estimator(&self) -> Estimator {
        Estimator::EXACT
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        let (shape, sequences) = (request.model.shape(), &request.prompts.sequences);
        let of_kinds = request.kinds.iter().flat_map(|kind| shape.units(*kind));
        let units: Vec<Unit> = of_kinds.filter(|u| request.layers.contains(&u.layer)).collect();
        let cuts: Vec<Cut> = units.iter().copied().map(Cut::Unit).collect();
        let nats =
            ablate_sequences(request.model, sequences, &cuts, request.batch_tokens, progress)?;
        let blank = |kind: &UnitKind| {
            let of = (*kind, &[Statistic::EXACT][..]);
            UnitSums::new(of, &shape, &request.layers, sequences.len())
        };
        let mut sums: Vec<(UnitKind, UnitSums)> =
            request.kinds.iter().map(|kind| (*kind, blank(kind))).collect();
        let Some((clean, rows)) = nats.split_first() else { return Ok(request.deposit()) };
        for (unit, row) in units.iter().zip(rows) {
            let of_kind = sums.iter_mut().find(|(kind, _)| *kind == unit.kind);
            let Some((_, sums)) = of_kind else { continue };
            for (prompt, (cut, clean)) in row.iter().zip(clean).enumerate() {
                sums.add((unit.layer as usize, unit.index), prompt, [cut - clean]);
            }
        }
        let mut deposit = request.deposit();
        sums.iter().for_each(|(_, sums)| sums.tell(&request.tokens(), &mut deposit));
        Ok(deposit)
    }
}

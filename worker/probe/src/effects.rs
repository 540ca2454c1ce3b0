//! Exact effects of single units: the change of each prompt's loss when the unit is cut.

use crate::Result;
use crate::ablate::ablate;
use uspx_domain::{Column, Cut, Deposit, LossRow, Statistic, Unit};
use uspx_model::{LoadedModel, ModelError, Pulse, Readable};

/// Cuts each of `units` alone: one [`Statistic::Exact`] column each, in nats summed over a prompt's response.
///
/// # Errors
/// As [`ablate`].
pub fn exact_effects(
    model: &LoadedModel,
    prompts: &Readable,
    units: &[Unit],
    batch_tokens: usize,
    pulse: &dyn Pulse,
) -> Result<Deposit> {
    let cuts: Vec<Cut> = units.iter().copied().map(Cut::Unit).collect();
    let rows = ablate(model, prompts, &cuts, batch_tokens, pulse)?;
    let mut rows = rows.into_iter();
    let clean = rows.next().ok_or_else(|| ModelError::Request("an ablation without its clean run".into()))?;
    let columns = units.iter().zip(rows).map(|(unit, row)| difference(*unit, &clean, &row)).collect();
    Ok(Deposit { prompts: clean.prompts, columns })
}

fn difference(unit: Unit, clean: &LossRow, cut: &LossRow) -> Column {
    let values = cut.nats.iter().zip(&clean.nats).map(|(cut, clean)| cut - clean).collect();
    Column { unit, statistic: Statistic::Exact, values }
}

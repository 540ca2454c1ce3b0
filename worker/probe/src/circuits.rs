//! Losses of *circuits*: what a mask keeps of a model, its mean output in the place of every head and
//! channel that it cuts (MIB: Mueller et al. 2025, arXiv 2504.13151). Experts that it cuts are
//! banned, and their tokens go to others.

use crate::ablate::{Patch, patched};
use crate::evaluate::{Against, evaluate, loss_row};
use crate::{Means, Result};
use candle_core::Tensor;
use uspx_domain::{LossRow, Mask, Unit, UnitKind};
use uspx_model::cuts::CutTaps;
use uspx_model::taps::Site;
use uspx_model::{LoadedModel, Progress, Readable};

/// Runs the circuit of every mask on every prompt: the first row of the whole model, then one row per
/// mask, in order.
///
/// # Errors
/// A mask that does not fit the model, or cuts what there are no means of; those of the model; a stop
/// by the keeper.
pub fn circuits(
    model: &LoadedModel,
    prompts: &Readable,
    (masks, means): (&[Mask], &Means),
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Vec<LossRow>> {
    let (shape, device) = (model.shape(), model.transformer.device());
    let patch = |mask: &Mask| {
        let cut = CutTaps::of_mask(mask, &shape, device)?;
        Ok(Patch::of_taps(cut.substituted(means)?))
    };
    let patches: Vec<Patch> = masks.iter().map(patch).collect::<Result<_>>()?;
    let subject = (model, prompts.sequences.as_slice(), None);
    let nats = patched(subject, &patches, batch_tokens, progress)?;
    Ok(nats.iter().map(|row| loss_row(prompts, row)).collect())
}

/// The model with every unit of some kinds replaced by its mean output: of experts, what all of a
/// layer's experts together give on average.
///
/// # Errors
/// There are no means of a kind; those of the model; a stop by the keeper.
pub fn emptied(
    model: &LoadedModel,
    prompts: &Readable,
    (kinds, means): (&[UnitKind], &Means),
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<LossRow> {
    let (shape, device) = (model.shape(), model.transformer.device());
    let others = kinds.iter().filter(|kind| **kind != UnitKind::Expert);
    let units: Vec<Unit> = others.flat_map(|kind| shape.units(*kind)).collect();
    let mut cut = CutTaps::of_units(&units, &shape, device)?.substituted(means)?;
    let mixes = kinds.contains(&UnitKind::Expert);
    let mut mixtures = |site: Site<'_>, value: &Tensor| -> Result<Option<Tensor>> {
        let Site::MlpOut { layer } = site else { return Ok(None) };
        let mean = means.of_mixture(layer).filter(|_| mixes);
        let all = |mean: &Tensor| mean.to_dtype(value.dtype())?.broadcast_as(value.shape());
        Ok(mean.map(all).transpose()?)
    };
    let mut taps = (&mut cut, &mut mixtures);
    let found = evaluate(model, prompts, batch_tokens, &mut taps, &Against::Nothing, progress)?;
    Ok(found.losses)
}

//! Exact effects of single units: the change of each prompt's loss when the unit is cut or replaced.

use super::{Measure, ProbeRequest};
use crate::Result;
use crate::ablate::{HeadBaseline, Patch, patched};
use crate::means::{Means, means_of};
use crate::resample::sources;
use crate::sums::UnitSums;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uspx_domain::{Baseline, Cut, Deposit, Estimator, Statistic, Unit, UnitKind};
use uspx_model::{ModelError, Progress};

/// Patches each unit alone, in nats summed over a prompt's response.
pub(super) struct Exact;

impl Measure for Exact {
    fn estimator(&self) -> Estimator {
        Estimator::EXACT
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        let (shape, sequences) = (request.model.shape(), &request.prompts.sequences);
        let of_kinds = request.kinds.iter().flat_map(|kind| shape.units(*kind));
        let units: Vec<Unit> = of_kinds.filter(|u| request.layers.contains(&u.layer)).collect();
        let patches = patches(request, &units)?;
        let sources = givers(request)?;
        let subject = (request.model, sequences.as_slice(), sources.as_deref());
        let nats = patched(subject, &patches, request.batch_tokens, progress)?;
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

/// Refuses a baseline that some of the units that the model has do not have.
fn check_baseline(request: &ProbeRequest<'_>, units: &[Unit]) -> Result<()> {
    // What becomes of an expert its mode says.
    let serves = |kind: UnitKind| matches!(kind, UnitKind::Expert | UnitKind::Head);
    let resampled = request.baseline == Baseline::Resample;
    match units.iter().find(|unit| resampled && !serves(unit.kind)) {
        Some(Unit { kind, .. }) => {
            let reason = format!("exact: of {kind}s only the baselines zero and mean are served");
            Err(ModelError::Request(reason))
        }
        None => Ok(()),
    }
}

/// The patch of each unit: of an expert as its mode says, of any other to the baseline.
fn patches(request: &ProbeRequest<'_>, units: &[Unit]) -> Result<Vec<Patch>> {
    check_baseline(request, units)?;
    let replaces = units.iter().any(|unit| unit.kind != UnitKind::Expert);
    let means = if replaces { means_of(request)?.map(Arc::new) } else { None };
    let bases = feature_means(means.as_deref(), units)?;
    let of_heads = match (request.baseline, &means) {
        (Baseline::Resample, _) => HeadBaseline::Resampled,
        (_, Some(means)) => HeadBaseline::Mean(means.clone()),
        (_, None) => HeadBaseline::Zero,
    };
    let patch = |unit: &Unit| {
        let (layer, index) = (unit.layer as usize, unit.index);
        match (Patch::of_cut(&Cut::Unit(*unit), request.model)?, &means) {
            (Patch::Expert { .. }, _) => {
                Ok(Patch::Expert { layer, index, mode: request.expert_mode })
            }
            (Patch::Head { .. }, _) => Ok(Patch::Head { layer, index, baseline: of_heads.clone() }),
            (Patch::Feature { .. }, _) => {
                let base = bases.get(&layer).and_then(|of| of.get(index as usize)).copied();
                Ok(Patch::Feature { layer, index, base: base.unwrap_or(0.0) })
            }
            (Patch::Cut { taps, .. }, Some(means)) => {
                Ok(Patch::of_taps(taps.substituted(means.as_ref())?))
            }
            (cut, _) => Ok(cut),
        }
    };
    units.iter().map(patch).collect()
}

/// The mean strengths of the features of each layer that some are of; none without means.
fn feature_means(means: Option<&Means>, units: &[Unit]) -> Result<BTreeMap<usize, Vec<f32>>> {
    let Some(means) = means else { return Ok(BTreeMap::new()) };
    let features = units.iter().filter(|unit| unit.kind == UnitKind::Feature);
    let layers: BTreeSet<usize> = features.map(|unit| unit.layer as usize).collect();
    layers.into_iter().map(|layer| Ok((layer, means.of_features(layer)?))).collect()
}

/// The sequence that each one's heads are resampled from, where they are.
fn givers(request: &ProbeRequest<'_>) -> Result<Option<Vec<usize>>> {
    if request.baseline != Baseline::Resample {
        return Ok(None);
    }
    let found = sources(&request.prompts.sequences, request.seed);
    let alone = |number: usize| {
        let prompt = request.prompts.prompts.get(number).map_or("", |prompt| prompt.id.as_str());
        ModelError::Request(format!(
            "prompt {prompt} has no other one with as many tokens to resample from"
        ))
    };
    let each = found.into_iter().enumerate();
    each.map(|(number, giver)| giver.ok_or_else(|| alone(number))).collect::<Result<_>>().map(Some)
}

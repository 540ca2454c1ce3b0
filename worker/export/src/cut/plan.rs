//! Which expert of the source goes where, and which masks cannot be carried out by removing
//! experts.

use super::CutRequest;
use crate::{ExportError, Result};
use std::collections::BTreeSet;
use uspx_domain::{Mask, Unit, UnitKind};
use uspx_model::config::{Mixture, Mlp};
use uspx_model::{ExpertPart, StoredModel};

/// The experts of the written model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Per layer, for each of its experts which one of the source's it is; `None` is a dead one.
    /// Empty for a layer without experts.
    pub slots: Vec<Vec<Option<u32>>>,
    /// Experts of every layer that has some.
    pub experts: usize,
    /// Experts of the source's layers.
    pub before: Vec<usize>,
}

impl Plan {
    /// Kept experts stay in their order. Layers that keep fewer than the most are filled up with
    /// dead ones.
    pub fn of(request: &CutRequest<'_>) -> Result<Self> {
        let CutRequest { source, fingerprint, mask, .. } = *request;
        if mask.model != fingerprint {
            return refuse(format!("the mask is of model {}, this is {fingerprint}", mask.model));
        }
        let shape = source.config.shape();
        mask.check(&shape).map_err(|e| ExportError::Refused(e.to_string()))?;
        only_experts(source, mask)?;
        let layers = 0..source.config.mlps.len();
        let alive: Vec<Vec<u32>> = layers.map(|at| alive(source, at)).collect::<Result<_>>()?;
        let kept = kept(source, mask, &alive)?;
        if kept == alive {
            return refuse(
                "the mask keeps every expert: there is nothing to remove, the model is the one that there is".to_owned(),
            );
        }
        let widths = shape.widths(UnitKind::Expert);
        let before: Vec<usize> = widths.into_iter().map(|n| n as usize).collect();
        let counts: Vec<usize> = kept.iter().map(Vec::len).filter(|n| *n > 0).collect();
        let (fewest, most) = (counts.iter().min(), counts.iter().max());
        let experts = most.copied().unwrap_or(0);
        if fewest != most && !can_be_padded(source) {
            return refuse(format!(
                "the mask keeps from {} to {experts} experts in a layer, and a router of {} has no bias that could say of \
                 the others that they are gone: build a mask that keeps as many in every layer (uspx mask build --spread \
                 uniform), or apply this one while the model runs (--mask)",
                fewest.copied().unwrap_or(0),
                source.config.architecture
            ));
        }
        let padded = |kept: Vec<u32>| -> Vec<Option<u32>> {
            let dead = if kept.is_empty() { 0 } else { experts - kept.len() };
            kept.into_iter().map(Some).chain(std::iter::repeat_n(None, dead)).collect()
        };
        Ok(Self { slots: kept.into_iter().map(padded).collect(), experts, before })
    }

    /// The experts of a layer.
    pub fn layer(&self, layer: usize) -> &[Option<u32>] {
        self.slots.get(layer).map(Vec::as_slice).unwrap_or_default()
    }
}

fn refuse<T>(reason: String) -> Result<T> {
    Err(ExportError::Refused(reason))
}

/// Refuses a mask that cuts anything else.
fn only_experts(source: &StoredModel, mask: &Mask) -> Result<()> {
    let shape = source.config.shape();
    let others = UnitKind::ALL.iter().filter(|kind| **kind != UnitKind::Expert);
    let cut = others.map(|kind| (kind, mask.cut(&shape, *kind).len())).filter(|(_, n)| *n > 0);
    let counted =
        |(kind, n): (&UnitKind, usize)| format!("{n} {kind}{}", if n == 1 { "" } else { "s" });
    let cut: Vec<String> = cut.map(counted).collect();
    if cut.is_empty() {
        return Ok(());
    }
    refuse(format!(
        "the mask also cuts {}, and only experts can be removed from a model's files: build a mask of experts alone (uspx \
         mask build --units expert), or apply this one while the model runs (--mask)",
        cut.join(" and ")
    ))
}

/// The experts of a layer that its router can choose, ascending.
fn alive(source: &StoredModel, layer: usize) -> Result<Vec<u32>> {
    let alive = source.alive(layer)?;
    Ok((0..).zip(alive).filter(|(_, alive)| *alive).map(|(index, _)| index).collect())
}

/// Those of each layer that the mask keeps.
fn kept(source: &StoredModel, mask: &Mask, alive: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
    let mut kept = Vec::new();
    for ((layer, alive), mlp) in (0..).zip(alive).zip(&source.config.mlps) {
        let stays = |index: &u32| mask.keeps(Unit { kind: UnitKind::Expert, layer, index: *index });
        let stay: Vec<u32> = alive.iter().copied().filter(stays).collect();
        let needed = if let Mlp::Experts(Mixture { top_k, .. }) = mlp { *top_k } else { 0 };
        if stay.len() < needed {
            return refuse(format!(
                "layer {layer} would keep {} of the experts that its router can choose, and it picks {needed}: keep at least \
                 that many",
                stay.len()
            ));
        }
        kept.push(stay);
    }
    Ok(kept)
}

/// Whether every router has a bias that can say of an expert that it is never to be chosen, and
/// experts lie in tensors that have room for one that is not there.
fn can_be_padded(source: &StoredModel) -> bool {
    let tensors = source.expert_tensors();
    let (mut layers, mut biases) = (BTreeSet::new(), 0);
    for tensor in tensors.values() {
        layers.insert(tensor.layer);
        match tensor.part {
            ExpertPart::RouterBias => biases += 1,
            ExpertPart::Own(_) => return false,
            ExpertPart::Entries => {}
        }
    }
    biases == layers.len()
}

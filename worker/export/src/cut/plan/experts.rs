//! Which expert of the source goes where, and which masks cannot be carried out by removing
//! experts.

use super::{Along, Fate, Filler, Kept, Pick, Slots, refuse};
use crate::Result;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Mask, Unit, UnitKind};
use uspx_model::config::{Family, Mixture, Mlp, ModelConfig};
use uspx_model::{ExpertPart, ExpertTensor, StoredModel};

/// The two names of the number of experts.
const COUNTS: [&str; 2] = ["num_local_experts", "num_experts"];

/// The experts of the written model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experts {
    /// Those of each layer; empty for a layer without.
    slots: Vec<Slots>,
    /// Experts of every layer that has some.
    experts: usize,
    /// Experts of the source's layers.
    before: Vec<usize>,
}

impl Experts {
    /// Kept experts stay in their order. Layers that keep fewer than the most are filled up with
    /// dead ones.
    pub fn of(source: &StoredModel, mask: &Mask) -> Result<Self> {
        let layers = 0..source.config.mlps.len();
        let alive: Vec<Vec<u32>> = layers.map(|at| alive(source, at)).collect::<Result<_>>()?;
        let kept = kept(source, mask, &alive)?;
        if kept == alive {
            return refuse(
                "the mask keeps every expert: there is nothing to remove, the model is the one that there is".to_owned(),
            );
        }
        let widths = source.config.shape().widths(UnitKind::Expert);
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
        let padded = |kept: Vec<u32>| -> Slots {
            let dead = if kept.is_empty() { 0 } else { experts - kept.len() };
            kept.into_iter().map(Some).chain(std::iter::repeat_n(None, dead)).collect()
        };
        Ok(Self { slots: kept.into_iter().map(padded).collect(), experts, before })
    }

    /// What becomes of the tensors of routers and experts.
    pub fn fates(&self, source: &StoredModel) -> BTreeMap<String, Fate<'_>> {
        let tensors = source.expert_tensors();
        tensors.into_iter().map(|(name, place)| (name, self.fate(&place))).collect()
    }

    fn fate(&self, place: &ExpertTensor) -> Fate<'_> {
        let slots = self.slots.get(place.layer).map(Vec::as_slice).unwrap_or_default();
        let dead = match &place.part {
            ExpertPart::Own(own) => {
                let slot = slots.iter().position(|slot| *slot == Some(own.expert as u32));
                return slot.map_or(Fate::Gone, |slot| Fate::Whole(own.renumbered(slot)));
            }
            ExpertPart::Entries => Filler::Zeros,
            ExpertPart::RouterBias => Filler::Never,
        };
        let of = self.before.get(place.layer).copied().unwrap_or(0);
        Fate::Picked(Pick { along: Along::Rows, of, each: 1, slots, dead })
    }

    /// The new count under each name that it has in the source's config.json.
    pub fn keys(&self, config: &Value) -> Vec<(&'static str, Value)> {
        let said: Vec<&str> = COUNTS.into_iter().filter(|key| config.get(key).is_some()).collect();
        let said = if said.is_empty() { vec![usual(config)] } else { said };
        said.into_iter().map(|key| (key, json!(self.experts))).collect()
    }

    /// See [`super::Plan::apply`].
    pub fn apply(&self, config: &mut ModelConfig) {
        for mlp in &mut config.mlps {
            if let Mlp::Experts(mixture) = mlp {
                mixture.experts = self.experts;
            }
        }
    }

    /// See [`super::Plan::note`].
    pub fn note(&self) -> (Value, Value) {
        let source = json!({ "experts": self.before });
        // For each expert here which one of the source's it is; null is dead: its router's bias is -inf.
        (source, json!({ "experts": self.experts, "expert_of_source": self.slots }))
    }

    /// See [`super::Plan::kept`].
    pub fn kept(&self) -> Kept {
        Kept::Experts {
            experts_before: self.before.clone(),
            experts_kept: self.slots.iter().map(|slots| slots.iter().flatten().count()).collect(),
            experts: self.experts,
            dead: self.slots.iter().map(|s| s.iter().filter(|e| e.is_none()).count()).collect(),
        }
    }
}

/// The name by which the family's class knows the number of experts.
fn usual(config: &Value) -> &'static str {
    let named = config.get("model_type").and_then(Value::as_str).and_then(Family::named);
    if named == Some(Family::Qwen3Moe) { "num_experts" } else { "num_local_experts" }
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

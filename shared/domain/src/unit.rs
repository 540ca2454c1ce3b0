//! What a mask keeps or cuts, and what is measured about it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The kinds of unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    /// One expert of a mixture-of-experts layer.
    Expert,
    /// One query head's output, before the output projection.
    Head,
    /// One hidden channel of a dense MLP.
    Channel,
}

impl fmt::Display for UnitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnitKind::Expert => "expert",
            UnitKind::Head => "head",
            UnitKind::Channel => "channel",
        })
    }
}

/// One unit: its kind, its layer (from 0) and its index in the layer (from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unit {
    /// What kind of unit.
    pub kind: UnitKind,
    /// Its layer, from 0.
    pub layer: u32,
    /// Its index within the layer, from 0.
    pub index: u32,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.kind, self.layer, self.index)
    }
}

/// The dimensions of a model that decisions need; no weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Transformer layers.
    pub layers: u32,
    /// Experts per layer; 0 in a dense model.
    pub experts: u32,
    /// Experts that the router picks per token; 0 in a dense model.
    pub top_k: u32,
    /// Query heads per layer.
    pub heads: u32,
    /// Hidden channels of a dense MLP; 0 where the MLP is a mixture of experts.
    pub channels: u32,
}

impl ModelShape {
    /// Units of `kind` in each layer.
    pub fn per_layer(&self, kind: UnitKind) -> u32 {
        match kind {
            UnitKind::Expert => self.experts,
            UnitKind::Head => self.heads,
            UnitKind::Channel => self.channels,
        }
    }

    /// Whether the model has that unit.
    pub fn has(&self, unit: Unit) -> bool {
        unit.layer < self.layers && unit.index < self.per_layer(unit.kind)
    }

    /// Every unit of `kind`, layer by layer.
    pub fn units(&self, kind: UnitKind) -> impl Iterator<Item = Unit> + use<> {
        let width = self.per_layer(kind);
        (0..self.layers).flat_map(move |layer| (0..width).map(move |index| Unit { kind, layer, index }))
    }
}

/// What a deposit's column holds. Sums run over the prompt's response positions; methods are named in ARCHITECTURE.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Experts: positions routed to it. Unit: positions.
    Count,
    /// Experts: sum of gate weights g.
    GateMass,
    /// Experts: sum of g times the norm of the expert's output (REAP's saliency before it is divided by the count).
    Saliency,
    /// Experts: sum of g‖f‖·max(0, 1 − cos(h, h + MoE(h))) (EASY-EP).
    EasyEp,
    /// Heads: sum of the output's norm.
    HeadNorm,
    /// Attribution patching: signed first-order effect of the baseline on the loss. Unit: nats, summed over the prompt.
    Atp,
    /// Attribution patching: the same per token, made positive before summing.
    AtpAbs,
    /// Exact ablation: change of the prompt's summed loss when the unit is cut. Unit: nats.
    Exact,
}

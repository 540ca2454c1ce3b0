//! The dimensions of a model that decisions need, layer by layer; no weights.

use crate::{Unit, UnitKind};
use serde::{Deserialize, Serialize};

/// A model's layers. They may differ: dense layers among layers with experts, carved models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelShape {
    /// The layers, from the first.
    pub layers: Vec<LayerShape>,
}

/// One layer's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LayerShape {
    /// Query heads.
    pub heads: u32,
    /// What follows attention.
    pub mlp: MlpShape,
    /// Features of the sparse autoencoder that reads the stream after this layer; 0 without one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub features: u32,
}

/// A layer's second half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MlpShape {
    /// One MLP for all tokens.
    Dense {
        /// Its hidden channels.
        channels: u32,
    },
    /// A mixture of experts.
    Experts {
        /// Experts.
        experts: u32,
        /// Experts that the router picks per token.
        top_k: u32,
        /// Hidden channels of each expert.
        channels: u32,
    },
}

/// Whether a count goes without saying: what is read from before there was any has none.
pub(crate) fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl MlpShape {
    /// Experts; 0 where the layer is dense.
    pub fn experts(&self) -> u32 {
        if let Self::Experts { experts, .. } = self { *experts } else { 0 }
    }

    /// Experts that the router picks per token, at most all; 0 where the layer is dense.
    pub fn top_k(&self) -> u32 {
        if let Self::Experts { experts, top_k, .. } = self { *top_k.min(experts) } else { 0 }
    }

    /// Hidden channels of a dense MLP; 0 where there are experts.
    pub fn dense_channels(&self) -> u32 {
        if let Self::Dense { channels } = self { *channels } else { 0 }
    }

    /// Hidden channels of all experts together; 0 where the layer is dense.
    pub fn expert_channels(&self) -> u32 {
        match self {
            Self::Experts { experts, channels, .. } => experts.saturating_mul(*channels),
            Self::Dense { .. } => 0,
        }
    }
}

impl LayerShape {
    /// A layer that no autoencoder reads.
    pub fn new(heads: u32, mlp: MlpShape) -> Self {
        Self { heads, mlp, features: 0 }
    }

    /// Units of `kind`.
    pub fn width(&self, kind: UnitKind) -> u32 {
        (kind.row().width)(self)
    }
}

impl ModelShape {
    /// `layers` layers that are all alike.
    pub fn uniform(layers: u32, layer: LayerShape) -> Self {
        Self { layers: vec![layer; layers as usize] }
    }

    /// Layers.
    pub fn depth(&self) -> u32 {
        self.layers.len() as u32
    }

    /// A layer, with its number.
    fn numbered(&self) -> impl Iterator<Item = (u32, &LayerShape)> {
        (0..).zip(&self.layers)
    }

    /// Units of `kind` in a layer; none in a layer that the model lacks.
    pub fn width(&self, kind: UnitKind, layer: u32) -> u32 {
        self.layers.get(layer as usize).map_or(0, |l| l.width(kind))
    }

    /// Units of `kind` in each layer.
    pub fn widths(&self, kind: UnitKind) -> Vec<u32> {
        self.layers.iter().map(|l| l.width(kind)).collect()
    }

    /// The least that a mask must keep of `kind` in a layer.
    pub fn floor(&self, kind: UnitKind, layer: u32) -> u32 {
        self.layers.get(layer as usize).map_or(0, |l| (kind.row().floor)(l).min(l.width(kind)))
    }

    /// Units of `kind` in the whole model.
    pub fn count(&self, kind: UnitKind) -> usize {
        self.layers.iter().map(|l| l.width(kind) as usize).sum()
    }

    /// Whether the model has that unit.
    pub fn has(&self, unit: Unit) -> bool {
        unit.index < self.width(unit.kind, unit.layer)
    }

    /// Every unit of `kind`, layer by layer.
    pub fn units(&self, kind: UnitKind) -> impl Iterator<Item = Unit> + '_ {
        self.numbered().flat_map(move |(layer, shape)| {
            (0..shape.width(kind)).map(move |index| Unit { kind, layer, index })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dense layer, one with experts, and a carved one.
    fn mixed() -> ModelShape {
        let experts = |experts, top_k| MlpShape::Experts { experts, top_k, channels: 10 };
        ModelShape {
            layers: vec![
                LayerShape::new(4, MlpShape::Dense { channels: 30 }),
                LayerShape::new(4, experts(8, 2)),
                LayerShape { features: 5, ..LayerShape::new(3, experts(1, 2)) },
            ],
        }
    }

    #[test]
    fn layers_that_lack_a_kind_have_no_units_of_it() {
        let shape = mixed();
        assert_eq!(shape.widths(UnitKind::Expert), [0, 8, 1]);
        assert_eq!(shape.widths(UnitKind::Channel), [30, 0, 0]);
        assert_eq!(shape.widths(UnitKind::ExpertChannel), [0, 80, 10]);
        assert_eq!(shape.widths(UnitKind::Feature), [0, 0, 5]);
        for kind in UnitKind::ALL {
            assert_eq!(shape.units(*kind).count(), shape.count(*kind));
            assert!(shape.units(*kind).all(|unit| shape.has(unit)));
        }
        let phantom = Unit { kind: UnitKind::Expert, layer: 0, index: 0 };
        let beyond = Unit { kind: UnitKind::Head, layer: 3, index: 0 };
        assert!(!shape.has(phantom) && !shape.has(beyond));
    }

    #[test]
    fn the_floor_is_what_the_router_picks_and_the_layer_has() {
        let shape = mixed();
        let floors: Vec<u32> = (0..4).map(|layer| shape.floor(UnitKind::Expert, layer)).collect();
        assert_eq!(floors, [0, 2, 1, 0]);
        assert_eq!(shape.floor(UnitKind::Head, 1), 0);
    }
}

//! A model's dimensions, layer by layer.

use crate::{Flaw, Unread};
use serde::{Deserialize, Serialize};
use uspx_domain::{LayerShape, MlpShape, ModelShape, UnitKind};

/// More layers than any model has.
const MOST_LAYERS: usize = 1024;
/// Heads or experts of a whole model; the largest published ones have some 24,000.
const MOST_PARTS: u64 = 1 << 20;
/// Channels or features of a whole model; the largest published ones have some 50 million.
const MOST_CHANNELS: u64 = 1 << 28;

#[derive(Serialize, Deserialize)]
pub(crate) struct Layer {
    heads: u32,
    mlp: Mlp,
    /// Of the sparse autoencoder that reads the stream after the layer; 0 without one.
    features: u32,
}

one_of! {
    /// A layer's second half.
    Mlp { Dense(Dense) = "dense", Experts(Experts) = "experts", }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Dense {
    channels: u32,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Experts {
    experts: u32,
    top_k: u32,
    /// Of each expert.
    channels: u32,
}

impl From<&LayerShape> for Layer {
    fn from(layer: &LayerShape) -> Self {
        let mlp = match layer.mlp {
            MlpShape::Dense { channels } => Mlp::Dense(Dense { channels }),
            MlpShape::Experts { experts, top_k, channels } => {
                Mlp::Experts(Experts { experts, top_k, channels })
            }
        };
        Self { heads: layer.heads, mlp, features: layer.features }
    }
}

impl TryFrom<Layer> for LayerShape {
    type Error = Unread;
    fn try_from(layer: Layer) -> Result<Self, Unread> {
        let mlp = match layer.mlp {
            Mlp::Dense(Dense { channels }) => MlpShape::Dense { channels },
            Mlp::Experts(Experts { experts, top_k, channels }) => {
                MlpShape::Experts { experts, top_k, channels }
            }
            Mlp::Unknown => return Err(Unread::Unknown("a kind of layer")),
        };
        Ok(Self { heads: layer.heads, mlp, features: layer.features })
    }
}

/// The shape of these layers. What a coordinator allocates for a model follows from it, so it is
/// bounded here, before anyone reads it.
pub(crate) fn model(layers: Vec<Layer>) -> Result<ModelShape, Unread> {
    if layers.len() > MOST_LAYERS {
        return Err(Flaw::Bounds.into());
    }
    let shape = ModelShape { layers: super::try_all(layers)? };
    let too_many = |kind: &UnitKind| {
        let most = match *kind {
            UnitKind::Head | UnitKind::Expert => MOST_PARTS,
            _ => MOST_CHANNELS,
        };
        shape.count(*kind) as u64 > most
    };
    if UnitKind::ALL.iter().any(too_many) { Err(Flaw::Bounds.into()) } else { Ok(shape) }
}

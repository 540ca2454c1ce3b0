//! A model's dimensions, layer by layer.

use crate::Unread;
use serde::{Deserialize, Serialize};
use uspx_domain::{LayerShape, MlpShape};

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

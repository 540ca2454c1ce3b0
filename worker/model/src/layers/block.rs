//! A block of the transformer: attention, then an MLP or experts.

use crate::Result;
use crate::branch::Branches;
use crate::layers::attention::Attention;
use crate::layers::cache::LayerCache;
use crate::layers::frame::Frame;
use crate::layers::linear::Linear;
use crate::layers::mlp::DenseMlp;
use crate::layers::moe::Experts;
use crate::layers::norm::RmsNorm;
use crate::taps::{Backward, NoTaps, Projection, Site, Taps, tap};
use candle_core::Tensor;
use std::sync::Arc;

/// One block: attention, then an MLP or experts, each on the normalised stream and added to it.
#[derive(Debug, Clone)]
pub struct Block {
    /// Norm before attention.
    pub attention_norm: RmsNorm,
    /// Attention.
    pub attention: Attention,
    /// Norm before the MLP.
    pub mlp_norm: RmsNorm,
    /// What follows attention.
    pub feed_forward: FeedForward,
}

/// A block's second half.
#[derive(Debug, Clone)]
pub enum FeedForward {
    /// One MLP.
    Dense(Box<DenseMlp>),
    /// A mixture of experts.
    Experts(Arc<Experts>),
}

impl Block {
    pub(crate) fn attend(
        &self,
        layer: usize,
        x: Tensor,
        frame: &Frame,
        cache: Option<&mut LayerCache>,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let x = tap(taps, Site::ResidPre { layer }, x)?;
        let normed = self.attention_norm.forward(&x, taps.backward())?;
        let normed = tap(taps, Site::AttentionNorm { layer }, normed)?;
        let out = self.attention.forward(layer, &normed, frame, cache, taps)?;
        let out = tap(taps, Site::AttentionOut { layer }, out)?;
        Ok((&x + out)?)
    }

    /// The whole block on a stack of branches: `[places, hidden]` to the same, of the model's `last`
    /// layer only at the places that are asked for.
    pub(crate) fn branch(
        &self,
        layer: usize,
        x: &Tensor,
        (branches, last, trunk): (&Branches, bool, [&Tensor; 2]),
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let asking = if last { &branches.last } else { &branches.all };
        let normed = self.attention_norm.forward(x, taps.backward())?;
        let out = self.attention.branch(layer, &normed, (branches, asking, trunk), taps)?;
        let asked = match &asking.places {
            Some(places) => &x.index_select(places, 0)?,
            None => x,
        };
        self.feed(layer, (asked + out)?, taps)
    }

    pub(crate) fn feed(&self, layer: usize, x: Tensor, taps: &mut dyn Taps) -> Result<Tensor> {
        let x = tap(taps, Site::ResidMid { layer }, x)?;
        let normed = self.mlp_norm.forward(&x, taps.backward())?;
        let normed = tap(taps, Site::MlpNorm { layer }, normed)?;
        let out = match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.forward(layer, &normed, taps)?,
            FeedForward::Experts(experts) => experts.forward(layer, &normed, taps)?,
        };
        let out = tap(taps, Site::MlpOut { layer }, out)?;
        tap(taps, Site::ResidPost { layer }, (&x + out)?)
    }

    /// What a linear map is given of the residual stream that enters its half of the block, `[N, hidden]`:
    /// attention's for q, k, v and o, the MLP's for the others. None where there is no such map.
    pub(crate) fn linear_input(
        &self,
        layer: usize,
        projection: Projection,
        x: &Tensor,
        frame: &Frame,
    ) -> Result<Option<Tensor>> {
        let (taps, back) = (&mut NoTaps, Backward::Gradient);
        match projection {
            Projection::Q | Projection::K | Projection::V => {
                self.attention_norm.forward(x, back).map(Some)
            }
            Projection::O => {
                let normed = self.attention_norm.forward(x, back)?;
                let heads = self.attention.mixed(layer, &normed, frame, None, taps)?;
                Ok(Some(heads.flatten_from(1)?))
            }
            Projection::Gate | Projection::Up => self.mlp_norm.forward(x, back).map(Some),
            Projection::Down => match &self.feed_forward {
                FeedForward::Dense(mlp) => {
                    mlp.channels(&self.mlp_norm.forward(x, back)?, taps).map(Some)
                }
                FeedForward::Experts(_) => Ok(None),
            },
        }
    }

    pub(crate) fn linear(&self, projection: Projection) -> Option<&Linear> {
        let attention = &self.attention;
        let dense = match &self.feed_forward {
            FeedForward::Dense(mlp) => Some(mlp.as_ref()),
            FeedForward::Experts(_) => None,
        };
        match projection {
            Projection::Q => Some(&attention.q),
            Projection::K => Some(&attention.k),
            Projection::V => Some(&attention.v),
            Projection::O => Some(&attention.o),
            Projection::Gate => dense.map(|m| &m.gate),
            Projection::Up => dense.map(|m| &m.up),
            Projection::Down => dense.map(|m| &m.down),
        }
    }

    pub(crate) fn linear_mut(&mut self, projection: Projection) -> Option<&mut Linear> {
        let attention = &mut self.attention;
        let dense = match &mut self.feed_forward {
            FeedForward::Dense(mlp) => Some(mlp.as_mut()),
            FeedForward::Experts(_) => None,
        };
        match projection {
            Projection::Q => Some(&mut attention.q),
            Projection::K => Some(&mut attention.k),
            Projection::V => Some(&mut attention.v),
            Projection::O => Some(&mut attention.o),
            Projection::Gate => dense.map(|m| &mut m.gate),
            Projection::Up => dense.map(|m| &mut m.up),
            Projection::Down => dense.map(|m| &mut m.down),
        }
    }
}

//! One layer, taken from memory or read from its file once, to be run several times: on a batch and
//! on the branches of it.

use super::Transformer;
use super::parts::no_linear;
use crate::Result;
use crate::branch::Branches;
use crate::layers::block::Block;
use crate::layers::frame::Frame;
use crate::layers::linear::Linear;
use crate::taps::{NoTaps, Projection, Taps};
use candle_core::Tensor;
use std::borrow::Cow;

/// A layer of a transformer.
pub struct Layer<'a> {
    transformer: &'a Transformer,
    index: usize,
    block: Cow<'a, Block>,
}

impl Transformer {
    /// A layer to run.
    ///
    /// # Errors
    /// A layer that the model lacks or that cannot be read.
    pub fn layer(&self, index: usize) -> Result<Layer<'_>> {
        Ok(Layer { transformer: self, index, block: self.block(index)? })
    }
}

impl Layer<'_> {
    /// Runs it on whole sequences, `[N, hidden]`.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps; a stop by the keeper.
    pub fn run(&self, x: Tensor, frame: &Frame, taps: &mut dyn Taps) -> Result<Tensor> {
        let x = self.block.attend(self.index, x, frame, None, taps)?;
        let x = self.block.feed(self.index, x, taps)?;
        self.count(frame.spans().len())?;
        Ok(x)
    }

    /// Runs it on a stack of branches, `[places, hidden]`, against the keys and values that the
    /// trunk has in it, `[N, kv_heads, head_dim]` each. Of the model's last layer only the places
    /// that are asked for come out. The taps see what lies behind the attention's heads.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps; a stop by the keeper.
    pub fn branch(
        &self,
        x: &Tensor,
        branches: &Branches,
        trunk: [&Tensor; 2],
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let last = self.index + 1 == self.transformer.layers();
        let x = self.block.branch(self.index, x, (branches, last, trunk), taps)?;
        self.count(branches.sequences())?;
        Ok(x)
    }

    /// Runs it from its heads' outputs on, `[rows, heads, head_dim]`, of rows that entered it as x,
    /// `[rows, hidden]`, and are of so many `sequences`.
    ///
    /// # Errors
    /// Those of the tensor library and of the taps; a stop by the keeper.
    pub fn run_from_heads(
        &self,
        (x, heads): (&Tensor, Tensor),
        sequences: usize,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let out = self.block.attention.out(self.index, heads, taps)?;
        self.run_from_middle((x + out)?, sequences, taps)
    }

    /// Runs it from behind its attention on.
    ///
    /// # Errors
    /// As [`Self::run_from_heads`].
    pub fn run_from_middle(
        &self,
        x: Tensor,
        sequences: usize,
        taps: &mut dyn Taps,
    ) -> Result<Tensor> {
        let x = self.block.feed(self.index, x, taps)?;
        self.count(sequences)?;
        Ok(x)
    }

    /// Runs its attention half, `[N, hidden]` to the same: see [`Self::run_from_middle`] for the rest.
    ///
    /// # Errors
    /// Those of the tensor library; a stop by the keeper.
    pub fn run_to_middle(&self, x: Tensor, frame: &Frame) -> Result<Tensor> {
        self.transformer.meter.beat()?;
        self.block.attend(self.index, x, frame, None, &mut NoTaps)
    }

    /// What a linear map is given, `[N, in]`, of the residual stream x, `[N, hidden]`: as it enters the
    /// layer for the maps of attention, as it enters the MLP for the others.
    ///
    /// # Errors
    /// The layer has no such map; those of the tensor library; a stop by the keeper.
    pub fn linear_input(&self, of: Projection, x: &Tensor, frame: &Frame) -> Result<Tensor> {
        self.transformer.meter.beat()?;
        let input = self.block.linear_input(self.index, of, x, frame)?;
        input.ok_or_else(|| no_linear(self.index, of))
    }

    /// The linear map at a place, in a dense layer.
    ///
    /// # Errors
    /// The layer has no such map.
    pub fn linear(&self, projection: Projection) -> Result<&Linear> {
        self.block.linear(projection).ok_or_else(|| no_linear(self.index, projection))
    }

    /// The same, to change in this copy of the layer: the model keeps its own.
    ///
    /// # Errors
    /// The layer has no such map.
    pub fn linear_mut(&mut self, projection: Projection) -> Result<&mut Linear> {
        let index = self.index;
        self.block.to_mut().linear_mut(projection).ok_or_else(|| no_linear(index, projection))
    }

    fn count(&self, sequences: usize) -> Result<()> {
        self.transformer.meter.forward(sequences);
        self.transformer.meter.beat()
    }
}

//! The transformer's weights, one at a time: linear maps, embedding, head and norm.

use super::{Blocks, Transformer, streamed};
use crate::layers::adapter::Adapter;
use crate::layers::linear::Linear;
use crate::layers::norm::RmsNorm;
use crate::taps::Projection;
use crate::{ModelError, Result};
use candle_core::Tensor;
use std::borrow::Cow;
use std::ops::Range;

impl Transformer {
    /// The linear map at a place, in a dense model (experts hold their own).
    ///
    /// # Errors
    /// The model has no such map.
    pub fn linear(&self, layer: usize, projection: Projection) -> Result<&Linear> {
        let block = self.blocks()?.get(layer);
        block.and_then(|b| b.linear(projection)).ok_or_else(|| no_linear(layer, projection))
    }

    /// The same, to change.
    ///
    /// # Errors
    /// The model has no such map.
    pub fn linear_mut(&mut self, layer: usize, projection: Projection) -> Result<&mut Linear> {
        let Blocks::Held(blocks) = &mut self.blocks else { return Err(streamed()) };
        let block = blocks.get_mut(layer);
        block.and_then(|b| b.linear_mut(projection)).ok_or_else(|| no_linear(layer, projection))
    }

    /// The size of the linear map at a place, (out, in), of a model that may be streamed.
    ///
    /// # Errors
    /// The model has no such map.
    pub fn linear_dims(&self, layer: usize, projection: Projection) -> Result<(usize, usize)> {
        let dims = self.config.linear_dims(layer, projection);
        dims.ok_or_else(|| no_linear(layer, projection))
    }

    /// Puts an adapter beside the linear map at a place; of a streamed model it joins the map whenever that
    /// is read.
    ///
    /// # Errors
    /// The model has no such map.
    pub fn attach(&mut self, layer: usize, projection: Projection, adapter: Adapter) -> Result<()> {
        self.linear_dims(layer, projection)?;
        match &mut self.blocks {
            Blocks::InFile(_, adapters) => {
                adapters.insert((layer, projection), adapter);
            }
            Blocks::Held(_) => self.linear_mut(layer, projection)?.adapter = Some(adapter),
        }
        Ok(())
    }

    /// Some rows of the embedding, `[rows, hidden]`, as floats.
    ///
    /// # Errors
    /// Rows that it has not; a file that cannot be read.
    pub fn embedding_rows(&self, rows: Range<usize>) -> Result<Tensor> {
        self.embedding.part(rows)
    }

    /// Some rows of the output head, likewise.
    ///
    /// # Errors
    /// As [`Self::embedding_rows`].
    pub fn head_rows(&self, rows: Range<usize>) -> Result<Tensor> {
        self.head.part(rows)
    }

    /// The same model of other linear maps in its dense layers, each made of the one at its place.
    ///
    /// # Errors
    /// A model whose layers are not dense; those of `make`.
    pub fn mapped(&self, make: impl Fn(&Linear) -> Result<Linear>) -> Result<Self> {
        let mut copy = self.clone();
        for layer in 0..copy.layers() {
            for projection in Projection::DENSE {
                let linear = copy.linear_mut(layer, projection)?;
                *linear = make(linear)?;
            }
        }
        Ok(copy)
    }

    /// Embedding `[vocab, hidden]`, as floats.
    ///
    /// # Errors
    /// One that is in its file and cannot be read.
    pub fn embedding(&self) -> Result<Cow<'_, Tensor>> {
        self.embedding.float()
    }

    /// Output head `[vocab, hidden]`, as floats; the embedding itself where they are tied.
    ///
    /// # Errors
    /// One that is in its file and cannot be read.
    pub fn head(&self) -> Result<Tensor> {
        self.head.float()
    }

    /// Final norm.
    pub fn norm(&self) -> &RmsNorm {
        &self.norm
    }
}

pub(super) fn no_linear(layer: usize, projection: Projection) -> ModelError {
    ModelError::Request(format!("the model has no linear map {}", projection.path(layer)))
}

//! The vectors of a layer, which stay floats when its linear maps are written in 4 bits: gains of norms, and
//! biases.

use super::parts::no_linear;
use super::{Blocks, Transformer, no_layer};
use crate::Result;
use crate::config::Mlp;
use crate::layers::block::Block;
use crate::taps::Projection;
use candle_core::Tensor;

impl Transformer {
    /// The vectors of a layer by their checkpoint names. Of a streamed model they alone are read.
    ///
    /// # Errors
    /// A layer that the model lacks, or one with experts; a file that cannot be read.
    pub fn vectors(&self, layer: usize) -> Result<Vec<(String, Tensor)>> {
        let Some(Mlp::Dense { .. }) = self.config.mlps.get(layer) else {
            return Err(no_linear(layer, Projection::Gate));
        };
        match &self.blocks {
            Blocks::Held(blocks) => {
                Ok(held(layer, blocks.get(layer).ok_or_else(|| no_layer(layer))?))
            }
            Blocks::InFile(source, _) => {
                let read = |(name, width): (String, usize)| {
                    let vector = source.float(&name, &[width])?;
                    Ok((name, vector))
                };
                self.config.vectors(layer).into_iter().map(read).collect()
            }
        }
    }
}

/// Those of a block in memory.
fn held(layer: usize, block: &Block) -> Vec<(String, Tensor)> {
    let at = format!("model.layers.{layer}");
    let heads = block.attention.qk_norm.as_ref();
    let gains = [
        ("input_layernorm", Some(&block.attention_norm)),
        ("post_attention_layernorm", Some(&block.mlp_norm)),
        ("self_attn.q_norm", heads.map(|(q, _)| q)),
        ("self_attn.k_norm", heads.map(|(_, k)| k)),
    ];
    let gains = gains
        .into_iter()
        .filter_map(|(name, norm)| Some((format!("{at}.{name}.weight"), norm?.gain().clone())));
    let biases = Projection::DENSE.into_iter().filter_map(|projection| {
        let bias = block.linear(projection)?.bias()?;
        Some((format!("{}.bias", projection.path(layer)), bias.clone()))
    });
    gains.chain(biases).collect()
}

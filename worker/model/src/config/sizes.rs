//! The sizes of a dense layer's tensors, as the configuration has them: nothing is read.

use super::{Mlp, ModelConfig};
use crate::taps::Projection;

impl ModelConfig {
    /// The size of a linear map, (outputs, inputs); none of a layer that is not there or has experts.
    pub fn linear_dims(&self, layer: usize, projection: Projection) -> Option<(usize, usize)> {
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let Some(Mlp::Dense { inner }) = self.mlps.get(layer) else { return None };
        Some(match projection {
            Projection::Q => (query, self.hidden),
            Projection::K | Projection::V => (kv, self.hidden),
            Projection::O => (self.hidden, query),
            Projection::Gate | Projection::Up => (*inner, self.hidden),
            Projection::Down => (self.hidden, *inner),
        })
    }

    /// Names and widths of the vectors of a dense layer: gains of norms, and biases.
    pub fn vectors(&self, layer: usize) -> Vec<(String, usize)> {
        let at = format!("model.layers.{layer}");
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let gains = [
            (true, "input_layernorm", self.hidden),
            (true, "post_attention_layernorm", self.hidden),
            (self.qk_norm, "self_attn.q_norm", self.head_dim),
            (self.qk_norm, "self_attn.k_norm", self.head_dim),
        ];
        let biases = [
            (self.bias.qkv, Projection::Q, query),
            (self.bias.qkv, Projection::K, kv),
            (self.bias.qkv, Projection::V, kv),
            (self.bias.o, Projection::O, self.hidden),
        ];
        let gains = gains.into_iter().filter(|(is, ..)| *is);
        let biases = biases.into_iter().filter(|(is, ..)| *is);
        gains
            .map(|(_, name, width)| (format!("{at}.{name}.weight"), width))
            .chain(biases.map(|(_, map, width)| (format!("{}.bias", map.path(layer)), width)))
            .collect()
    }
}

//! Tensor names: Hugging Face's against GGUF's, which are the same for all dense architectures.

/// Names outside of the layers.
const GLOBAL: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// Module names within a layer.
const WITHIN: [(&str, &str); 11] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];

/// The frequency factors of Llama-3.1's stretched rotation; they have no Hugging Face name.
pub const ROPE_FREQS: &str = "rope_freqs.weight";

/// GGUF's name of a tensor.
pub fn to_gguf(name: &str) -> Option<String> {
    if let Some((_, gguf)) = GLOBAL.iter().find(|(hf, _)| *hf == name) {
        return Some((*gguf).to_owned());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let (_, gguf) = WITHIN.iter().find(|(hf, _)| *hf == module)?;
    Some(format!("blk.{}.{gguf}.{}", number(layer)?, weight_or_bias(kind)?))
}

/// Hugging Face's name of a tensor.
pub fn to_hf(name: &str) -> Option<String> {
    if let Some((hf, _)) = GLOBAL.iter().find(|(_, gguf)| *gguf == name) {
        return Some((*hf).to_owned());
    }
    let mut parts = name.strip_prefix("blk.")?.splitn(3, '.');
    let (layer, module, kind) = (parts.next()?, parts.next()?, parts.next()?);
    let (hf, _) = WITHIN.iter().find(|(_, gguf)| *gguf == module)?;
    Some(format!("model.layers.{}.{hf}.{}", number(layer)?, weight_or_bias(kind)?))
}

fn number(layer: &str) -> Option<u32> {
    layer.parse().ok()
}

fn weight_or_bias(kind: &str) -> Option<&str> {
    ["weight", "bias"].into_iter().find(|k| *k == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        let modules = WITHIN.iter().map(|(hf, _)| format!("model.layers.17.{hf}.weight"));
        for name in GLOBAL.iter().map(|(hf, _)| (*hf).to_owned()).chain(modules) {
            assert_eq!(to_hf(&to_gguf(&name).unwrap()), Some(name));
        }
        assert_eq!(
            to_gguf("model.layers.0.self_attn.q_proj.bias").as_deref(),
            Some("blk.0.attn_q.bias")
        );
        for foreign in
            ["model.layers.x.mlp.up_proj.weight", "blk.0", "model.layers.0.mlp.router.weight", ""]
        {
            assert_eq!((to_gguf(foreign), to_hf(foreign)), (None, None));
        }
    }
}

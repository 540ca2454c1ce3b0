//! What a checkpoint holds against what its configuration says: weights stored otherwise, and
//! tensors that no layer uses.

use crate::checkpoint::Checkpoint;
use crate::config::{Mixture, Mlp, ModelConfig, Quantisation};
use crate::names::{EMBEDDING, ExpertNames, HEAD, in_layer};
use crate::taps::Projection;
use crate::{ModelError, Result};
use std::collections::HashSet;

/// Tensors that older programs stored and every program computes anew.
const COMPUTED: [&str; 2] = [".rotary_emb.inv_freq", ".self_attn.masked_bias"];

/// Refuses a configuration whose numbers are not those of the tensors that are there, before
/// anything is made by these numbers. What is missing is refused where it is read.
///
/// # Errors
/// More layers than are stored, or a tensor of another shape.
pub(crate) fn check_dimensions(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<()> {
    let layers = checkpoint.names().into_iter().filter_map(in_layer).map(|(layer, _)| layer);
    let stored = layers.max().map_or(0, |m| m + 1);
    if config.windows.len() > stored {
        return Err(ModelError::Config(format!(
            "num_hidden_layers is {}, but the weights hold {stored} layers: fetch all files from one place",
            config.windows.len()
        )));
    }
    let table = [config.vocab, config.hidden];
    let embedding = [EMBEDDING, HEAD].into_iter().find(|name| checkpoint.has(name));
    let fits = embedding.map_or(Ok(()), |name| checkpoint.check_shape(name, &table));
    fits.map_err(|e| {
        ModelError::Config(format!("{e}: take config.json, tokenizer and weights from one place"))
    })?;
    (0..).zip(&config.mlps).try_for_each(|(layer, mlp)| check_layer(config, checkpoint, layer, mlp))
}

fn check_layer(c: &ModelConfig, checkpoint: &Checkpoint, layer: usize, mlp: &Mlp) -> Result<()> {
    let check = |path: &str, shape: &[usize]| checkpoint.check_shape(path, shape);
    let of = |map: Projection, out| check(&format!("{}.weight", map.path(layer)), &[out, c.hidden]);
    of(Projection::Q, c.heads * c.head_dim)?;
    of(Projection::K, c.kv_heads * c.head_dim)?;
    if c.sinks {
        check(&format!("model.layers.{layer}.self_attn.sinks"), &[c.heads])?;
    }
    match mlp {
        Mlp::Dense { inner } => of(Projection::Gate, *inner),
        Mlp::Experts(mixture) => {
            let names = ExpertNames::find(checkpoint, layer);
            let router = format!("{}.weight", names.router);
            if !checkpoint.has(&router) {
                // Nothing else here would bound the experts.
                return Err(ModelError::tensor(router, "is not in the checkpoint"));
            }
            check(&router, &[mixture.experts, c.hidden])?;
            check_experts(&names, mixture, c.hidden, &check)
        }
    }
}

/// The width of experts, by whichever tensor says it in its own words.
fn check_experts(
    names: &ExpertNames,
    &Mixture { experts, inner, bias, .. }: &Mixture,
    hidden: usize,
    check: &impl Fn(&str, &[usize]) -> Result<()>,
) -> Result<()> {
    let (at, [gate, ..]) = (&names.experts, names.parts);
    match (names.stacked, bias) {
        (false, _) => check(&format!("{at}.0.{gate}.weight"), &[inner, hidden]),
        (true, true) => check(&format!("{at}.gate_up_proj_bias"), &[experts, 2 * inner]),
        (true, false) => check(&format!("{at}.gate_up_proj"), &[experts, 2 * inner, hidden]),
    }
}

/// Whether the output head is the embedding. One that is stored beside it and holds other values is used as
/// it is, though config.json may tie the two.
///
/// # Errors
/// Those of reading them.
pub(crate) fn is_tied(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<bool> {
    if config.tied && checkpoint.has(HEAD) && checkpoint.has(EMBEDDING) {
        return checkpoint.same(HEAD, EMBEDDING, &[config.vocab, config.hidden]);
    }
    Ok(config.tied)
}

/// Refuses weights that are stored otherwise than `quantization_config` says.
///
/// # Errors
/// They are: what is said, what is stored, and what to do.
pub(crate) fn check_quantisation(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<()> {
    for (layer, _) in
        config.mlps.iter().enumerate().filter(|(_, mlp)| matches!(mlp, Mlp::Experts(_)))
    {
        let experts = ExpertNames::find(checkpoint, layer).experts;
        let floats = checkpoint.type_name(&format!("{experts}.gate_up_proj"));
        let blocks = checkpoint.has(&format!("{experts}.gate_up_proj_blocks"));
        match (config.quantisation, floats) {
            (Quantisation::Mxfp4, Some(stored)) if !blocks => {
                return Err(said_but_not_stored(&stored));
            }
            (Quantisation::None | Quantisation::Gptq, _) if blocks => {
                return Err(stored_but_not_said());
            }
            _ => {}
        }
    }
    let packed = checkpoint.names().iter().any(|name| name.ends_with(".qweight"));
    if packed { Err(packed_by_gptq(config.quantisation)) } else { Ok(()) }
}

/// What the exporter's reader unpacked has other names.
fn packed_by_gptq(said: Quantisation) -> ModelError {
    ModelError::Config(match said {
        Quantisation::Gptq => "this is a 4-bit GPTQ checkpoint: give the model that it was made from".into(),
        _ => {
            "the weights are packed as GPTQ packs them, but config.json has no quantization_config that says so: take \
              config.json from where the weights are from"
                .into()
        }
    })
}

fn said_but_not_stored(stored: &str) -> ModelError {
    ModelError::Config(format!(
        "quantization_config of config.json says mxfp4, but the experts are stored as {stored}: delete \
         quantization_config from config.json (it is left over from before the weights were converted)"
    ))
}

fn stored_but_not_said() -> ModelError {
    ModelError::Config(
        "the experts are stored in MXFP4 blocks, but config.json has no quantization_config that says so: add \
         \"quantization_config\": {\"quant_method\": \"mxfp4\"} to config.json"
            .into(),
    )
}

/// The tensors that no layer uses, sorted. Those that change nothing are not among them: what is
/// computed anew, and biases of zeros, which GPTQ's writers put beside every map.
pub(crate) fn unused(config: &ModelConfig, checkpoint: &Checkpoint) -> Vec<String> {
    let used = used(config, checkpoint);
    let harmless = |name: &str| {
        COMPUTED.iter().any(|end| name.ends_with(end))
            || (name.ends_with(".bias") && checkpoint.is_zero(name))
    };
    let names =
        checkpoint.names().into_iter().filter(|name| !used.contains(*name) && !harmless(name));
    names.map(str::to_owned).collect()
}

fn used(config: &ModelConfig, checkpoint: &Checkpoint) -> HashSet<String> {
    let mut used: HashSet<String> =
        [EMBEDDING, HEAD, "model.norm.weight"].map(str::to_owned).into();
    for (layer, mlp) in config.mlps.iter().enumerate() {
        attention(config, layer, &mut used);
        match mlp {
            Mlp::Dense { .. } => {
                let maps = [Projection::Gate, Projection::Up, Projection::Down];
                used.extend(maps.map(|map| format!("{}.weight", map.path(layer))));
            }
            Mlp::Experts(mixture) => {
                let tensors = ExpertNames::find(checkpoint, layer).tensors(mixture);
                used.extend(tensors.into_iter().map(|(name, _)| name));
            }
        }
    }
    used
}

fn attention(config: &ModelConfig, layer: usize, used: &mut HashSet<String>) {
    let at = format!("model.layers.{layer}");
    used.extend(
        ["input_layernorm", "post_attention_layernorm"].map(|norm| format!("{at}.{norm}.weight")),
    );
    let (qkv, o) = (config.bias.qkv, config.bias.o);
    for (map, bias) in
        [(Projection::Q, qkv), (Projection::K, qkv), (Projection::V, qkv), (Projection::O, o)]
    {
        linear(&map.path(layer), bias, used);
    }
    if config.qk_norm {
        used.extend(["q_norm", "k_norm"].map(|norm| format!("{at}.self_attn.{norm}.weight")));
    }
    if config.sinks {
        used.insert(format!("{at}.self_attn.sinks"));
    }
}

fn linear(path: &str, bias: bool, used: &mut HashSet<String>) {
    used.insert(format!("{path}.weight"));
    if bias {
        used.insert(format!("{path}.bias"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use std::collections::HashMap;
    use std::path::Path;

    /// The committed checkpoint of each family, and the shipped models.
    fn folders() -> Vec<std::path::PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let places = [root.join("tests/data/architectures"), root.join("cli/assets/nano")];
        places
            .iter()
            .flat_map(|p| std::fs::read_dir(p).unwrap().map(|entry| entry.unwrap().path()))
            .collect()
    }

    #[test]
    fn every_tensor_of_a_whole_model_is_used() {
        for folder in folders() {
            let (config, unknown) = ModelConfig::open_with_remarks(&folder).unwrap();
            let unused = unused(&config, &Checkpoint::open(&folder).unwrap());
            assert!(
                unused.is_empty() && unknown.is_empty(),
                "{}: {unused:?} {unknown:?}",
                folder.display()
            );
        }
    }

    #[test]
    fn what_no_layer_uses_is_named_unless_it_changes_nothing() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/architectures/llama-bias");
        let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let plain = text.replace("\"attention_bias\": true", "\"attention_bias\": false");
        let names =
            unused(&ModelConfig::from_json(&plain).unwrap(), &Checkpoint::open(&folder).unwrap());
        assert_eq!(names.len(), 8, "four biases in two layers: {names:?}");
        let one = |value: f32| {
            Tensor::full(value, 4, &Device::Cpu).and_then(|t| t.to_dtype(DType::F16)).unwrap()
        };
        let at = "model.layers.0.mlp.down_proj.bias";
        let with = |name: &str, value: f32| {
            Checkpoint::in_memory(HashMap::from([(name.to_owned(), one(value))]))
        };
        let config = ModelConfig::from_json(&text).unwrap();
        assert!(unused(&config, &with(at, 0.0)).is_empty());
        assert_eq!(unused(&config, &with(at, 0.5)), [at]);
        assert!(
            unused(&config, &with("model.layers.0.self_attn.rotary_emb.inv_freq", 0.5)).is_empty()
        );
    }
}

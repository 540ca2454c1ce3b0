//! `cfg.json`: what an SAE is.

use super::About;
use crate::place::Place;
use crate::sae::{Normalisation, Sae};
use crate::select::Select;
use serde_json::{Map, Value, json};

/// What `cfg.json` says, as far as it changes what is computed.
#[derive(Debug)]
pub(super) struct Config {
    pub width: usize,
    pub features: usize,
    pub architecture: Architecture,
    /// Whether the decoder's bias is taken from what is encoded.
    pub centres: bool,
    /// Whether features are chosen by their decoder rows' norms too.
    pub by_norm: bool,
    pub normalisation: Normalisation,
    pub about: About,
}

/// How features are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Standard,
    TopK(usize),
    /// A BatchTopK SAE as it is saved in training, with its one threshold.
    BatchTopK,
    JumpRelu,
}

/// Names of before version 6, and theirs now.
const RENAMED: [(&str, &str); 2] =
    [("hook_point", "hook_name"), ("activation_fn_str", "activation_fn")];

/// Reads a `cfg.json`.
pub(super) fn read(text: &str) -> Result<Config, String> {
    let map: Map<String, Value> = serde_json::from_str(text)
        .map_err(|e| format!("this is not the cfg.json of a SAELens SAE: {e}"))?;
    let map: Map<String, Value> =
        map.into_iter().map(|(key, value)| (renamed(key), value)).collect();
    let count = |key: &str| match map.get(key).and_then(Value::as_u64) {
        Some(n) if (1..=1 << 24).contains(&n) => Ok(n as usize),
        _ => Err(format!("{key} must be a whole number from 1 to 16777216")),
    };
    let reshaping = map.get("reshape_activations").and_then(Value::as_str).unwrap_or("none");
    if reshaping != "none" {
        return Err(format!(
            "reshape_activations is {reshaping}: only SAEs on values of the hidden width are read \
             here (residual stream, attention or MLP output)"
        ));
    }
    Ok(Config {
        width: count("d_in")?,
        features: count("d_sae")?,
        architecture: architecture(&map)?,
        centres: flag(&map, "apply_b_dec_to_input", true)?,
        by_norm: flag(&map, "rescale_acts_by_decoder_norm", false)?,
        normalisation: normalisation(&map)?,
        about: about(&map),
    })
}

fn renamed(key: String) -> String {
    RENAMED.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| (*new).to_owned())
}

fn flag(map: &Map<String, Value>, key: &str, default: bool) -> Result<bool, String> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(format!("{key} must be true or false, not {other}")),
    }
}

fn architecture(map: &Map<String, Value>) -> Result<Architecture, String> {
    let named = map.get("architecture").and_then(Value::as_str).unwrap_or("standard");
    // Before version 6 a TopK SAE was a standard one with another activation function.
    let topk = map.get("activation_fn").and_then(Value::as_str) == Some("topk");
    let old_k = map.get("activation_fn_kwargs").and_then(|kwargs| kwargs.get("k"));
    match if topk { "topk" } else { named } {
        "standard" => Ok(Architecture::Standard),
        "jumprelu" => Ok(Architecture::JumpRelu),
        "batchtopk" => Ok(Architecture::BatchTopK),
        "topk" => match map.get("k").or(old_k).and_then(Value::as_u64) {
            Some(k) if k > 0 => Ok(Architecture::TopK(k as usize)),
            _ => Err("k must be a whole number from 1".to_owned()),
        },
        other => Err(format!(
            "the architecture {other} is not known here: standard, topk, batchtopk and jumprelu are"
        )),
    }
}

fn normalisation(map: &Map<String, Value>) -> Result<Normalisation, String> {
    let named = match map.get("normalize_activations") {
        // As it was written before version 6.
        None | Some(Value::Null | Value::Bool(false)) => "none",
        Some(Value::Bool(true)) => "expected_average_only_in",
        Some(Value::String(name)) => name,
        Some(other) => {
            return Err(format!("normalize_activations is {other}: a name was expected"));
        }
    };
    match named {
        "none" => Ok(Normalisation::None),
        "constant_norm_rescale" => Ok(Normalisation::ConstantNorm),
        "layer_norm" => Ok(Normalisation::LayerNorm),
        "expected_average_only_in" => Err(
            "normalize_activations is expected_average_only_in, and the factor is not in the file: \
             fold it in (SAELens: sae.fold_activation_norm_scaling_factor) and save the SAE again"
                .to_owned(),
        ),
        other => Err(format!(
            "normalize_activations is {other}, which is not known here: fold it in with SAELens and \
             save the SAE again"
        )),
    }
}

/// Metadata: since version 6 in a map of their own, before among the settings.
fn about(map: &Map<String, Value>) -> About {
    let within = map.get("metadata").and_then(Value::as_object).unwrap_or(map);
    let text = |key: &str| within.get(key).and_then(Value::as_str).map(str::to_owned);
    let hook_name = text("hook_name");
    // The words of a Python slice: of a single one, it is the end.
    let slice = within.get("seqpos_slice").and_then(Value::as_array).filter(|s| s.len() > 1);
    About {
        model_name: text("model_name"),
        model: text("uspx_model"),
        place: hook_name.as_deref().and_then(Place::of_hook),
        hook_name,
        skip: slice.and_then(|s| s.first()?.as_u64()).unwrap_or(0) as usize,
    }
}

/// The `cfg.json` of an SAE, without its metadata.
pub(super) fn written(sae: &Sae<f32>) -> Value {
    let mut config = json!({
        "d_in": sae.parameters.width,
        "d_sae": sae.parameters.features(),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": true,
        "normalize_activations": match sae.normalisation {
            Normalisation::None => "none",
            Normalisation::ConstantNorm => "constant_norm_rescale",
            Normalisation::LayerNorm => "layer_norm",
        },
        "reshape_activations": "none",
    });
    let (architecture, k) = match &sae.select {
        Select::Positive => ("standard", None),
        Select::TopK(k) | Select::BatchTopK(k) => ("topk", Some(*k)),
        Select::Above(_) => ("jumprelu", None),
    };
    if let Some(map) = config.as_object_mut() {
        map.insert("architecture".to_owned(), architecture.into());
        if let Some(k) = k {
            map.insert("k".to_owned(), k.into());
            map.insert("rescale_acts_by_decoder_norm".to_owned(), false.into());
        }
    }
    config
}

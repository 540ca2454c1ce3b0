//! What a config.json means against what transformers makes of it: tests/data/config_meanings.json,
//! which tests/parity/config_meanings.py wrote. A meaning there is read off a model built in
//! PyTorch.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use uspx_model::config::{Family, Mlp, ModelConfig, role};
use uspx_model::layers::rope::Rotary;

#[derive(Deserialize)]
struct Golden {
    classes: BTreeMap<String, Map<String, Value>>,
    bases: BTreeMap<String, Map<String, Value>>,
    cases: Vec<Case>,
    meanings: Vec<Meaning>,
}

#[derive(Deserialize)]
struct Case {
    family: String,
    change: Map<String, Value>,
    without: Vec<String>,
    meaning: Option<usize>,
}

#[derive(Deserialize)]
struct Meaning {
    frequencies: Vec<f64>,
    factor: f64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../tests/data/config_meanings.json")).unwrap()
}

/// The file of a case. Weights are compared elsewhere: how they are stored is no part of the
/// meaning.
fn file(golden: &Golden, case: &Case) -> Value {
    let mut file = golden.bases[&case.family].clone();
    file.retain(|key, _| !case.without.contains(key) && key != "quantization_config");
    file.extend(case.change.clone());
    Value::Object(file)
}

fn ours(config: &ModelConfig) -> Value {
    let mlps: Vec<Value> = config.mlps.iter().map(mlp).collect();
    json!({
        "layers": config.windows.len(), "hidden": config.hidden, "vocab": config.vocab, "heads": config.heads,
        "kv_heads": config.kv_heads, "head_dim": config.head_dim, "qkv_bias": config.bias.qkv,
        "o_bias": config.bias.o, "eps": config.norm_eps, "tied": config.tied, "windows": config.windows, "mlps": mlps,
    })
}

fn mlp(mlp: &Mlp) -> Value {
    match mlp {
        Mlp::Dense { inner } => json!({ "inner": inner }),
        Mlp::Experts(m) => {
            json!({"experts": m.experts, "top_k": m.top_k, "inner": m.inner, "renormalise": m.renormalise})
        }
    }
}

/// Frequencies were computed in f32 and written with six digits.
fn same(config: &ModelConfig, wanted: &Meaning) -> Result<(), String> {
    let rotary = Rotary::new(&config.rope, config.head_dim);
    let near = |a: f64, b: f64| (a - b).abs() <= 2e-5 * b.abs().max(1e-12);
    let (found, rest) = (rotary.frequencies(), Value::Object(wanted.rest.clone()));
    if ours(config) != rest {
        return Err(format!("{} against {rest}", ours(config)));
    }
    let all = found.len() == wanted.frequencies.len()
        && found.iter().zip(&wanted.frequencies).all(|(a, b)| near(*a, *b));
    match all && near(rotary.factor(), wanted.factor) {
        true => Ok(()),
        false => Err(format!(
            "{found:?} {} against {:?} {}",
            rotary.factor(),
            wanted.frequencies,
            wanted.factor
        )),
    }
}

#[test]
fn every_file_means_what_transformers_makes_of_it() {
    let golden = golden();
    let (mut same_meaning, mut refused_by_both, mut more_lenient) = (0, 0, 0);
    let mut wrong = Vec::new();
    let mut stricter: BTreeMap<String, usize> = BTreeMap::new();
    for case in &golden.cases {
        let text = file(&golden, case).to_string();
        let what = format!("{} with {:?} without {:?}", case.family, case.change, case.without);
        match (ModelConfig::from_json(&text), case.meaning) {
            (Ok(config), Some(at)) => {
                wrong.extend(
                    same(&config, &golden.meanings[at]).err().map(|e| format!("{what}: {e}")),
                );
                same_meaning += 1;
            }
            (Err(_), None) => refused_by_both += 1,
            // transformers wants some keys to be there, or another type than a number's; here
            // `null` is a missing key.
            (Ok(_), None) => more_lenient += 1,
            (Err(error), Some(_)) => *stricter.entry(error.to_string()).or_default() += 1,
        }
    }
    assert!(wrong.is_empty(), "{}: {wrong:#?}", wrong.len());
    println!(
        "config.json: {same_meaning} mean the same, {refused_by_both} refused by both, {more_lenient} only there"
    );
    println!("refused only here: {stricter:#?}");
    assert!(same_meaning >= 800 && refused_by_both >= 200, "{same_meaning} {refused_by_both}");
    // The five dimensions, stretchings and values that are not known here, and what no weights
    // could be made for.
    let reasons = [
        "is missing",
        "are known",
        "not known",
        "only false is",
        "above 0 is expected",
        "divide",
        "of 5 experts",
    ];
    for error in stricter.keys() {
        assert!(reasons.iter().any(|reason| error.contains(reason)), "{error}");
    }
}

#[test]
fn every_key_of_every_class_is_known() {
    for (name, class) in golden().classes {
        let family = Family::named(&name).unwrap();
        let unknown: Vec<&String> =
            class.keys().filter(|key| role(family, key).is_none()).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
}

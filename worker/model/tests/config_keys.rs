//! No key of a config.json is passed over in silence: each key of each family, given another value,
//! `null`, another type, or taken away, changes the result, is refused, or stands in the table of
//! keys without effect.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use uspx_model::config::{Family, ModelConfig, Role, RopeScaling, role};

type Object = Map<String, Value>;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data")
}

fn object(path: &Path) -> Object {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The files that are changed: a full one of each family, those of the committed checkpoints, and
/// the shipped models'.
fn files(family: Family, golden: &Object) -> Vec<Object> {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano");
    let mut folders: Vec<PathBuf> = ["teacher", "student"].map(|which| nano.join(which)).into();
    folders.extend(
        std::fs::read_dir(data().join("architectures")).unwrap().map(|entry| entry.unwrap().path()),
    );
    folders.sort();
    let mut files = vec![golden["bases"][family.name()].as_object().unwrap().clone()];
    files.extend(folders.iter().map(|folder| object(&folder.join("config.json"))));
    files.retain(|file| file["model_type"] == family.name());
    files
}

/// One change of a file.
struct Change {
    key: String,
    kind: &'static str,
    file: Object,
}

/// Every change of one key of `file`, or of the object `within` it.
fn changes(file: &Object, within: Option<&str>, class: &Object) -> Vec<Change> {
    let inside = within.map_or(file, |key| file[key].as_object().unwrap());
    let mut keys: Vec<&String> = inside.keys().collect();
    if within.is_none() {
        keys.extend(class.keys().filter(|key| !file.contains_key(*key)));
    }
    let mut found = Vec::new();
    for key in keys.into_iter().filter(|key| *key != "model_type") {
        let value = inside.get(key).or(class.get(key)).cloned().unwrap_or_default();
        let mut put = |kind: &'static str, value: Option<Value>| {
            let mut inside = inside.clone();
            inside.remove(key);
            inside.extend(value.map(|value| (key.clone(), value)));
            let file = match within {
                None => inside,
                Some(outer) => {
                    let mut file = file.clone();
                    file.insert(outer.to_owned(), Value::Object(inside));
                    file
                }
            };
            let key = if within.is_some() { format!(".{key}") } else { key.clone() };
            found.push(Change { key, kind, file });
        };
        for other in others(&value).into_iter().filter(|other| *other != value) {
            // An empty object says as little as none.
            put(if other == json!({}) { "emptied" } else { "changed" }, Some(other));
        }
        put("of another type", Some(another_type(&value)));
        put("null", Some(Value::Null));
        if inside.contains_key(key) {
            put("removed", None);
        }
    }
    found
}

/// Other values of the same type.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(n) if n.is_u64() => {
            let n = n.as_u64().unwrap();
            vec![json!(n + 1), json!(n * 2 + 2), json!(0)]
        }
        Value::Number(n) => vec![json!(n.as_f64().unwrap() * 2.0 + 0.25), json!(-1.0)],
        Value::String(text) => vec![json!(format!("{text}-other"))],
        Value::Array(list) => {
            let mut longer = list.clone();
            // Of numbers, one that is not there: layer 1 has experts in every file.
            let fresh = json!(u64::from(!list.contains(&json!(1))));
            longer.push(list.first().filter(|v| v.is_string()).cloned().unwrap_or(fresh));
            vec![Value::Array(longer), Value::Array(list.iter().skip(1).cloned().collect())]
        }
        Value::Object(_) => vec![json!({}), json!({"no such key": 1})],
    }
}

fn another_type(value: &Value) -> Value {
    match value {
        Value::String(_) => json!(7),
        Value::Null | Value::Array(_) | Value::Object(_) => json!("a string"),
        other => json!(other.to_string()),
    }
}

fn number(file: &Object, key: &str) -> Option<f64> {
    file.get(key).and_then(Value::as_f64)
}

/// The object that describes the rotation, where one does.
fn rotation(file: &Object) -> Object {
    let of = |key: &str| file.get(key).and_then(Value::as_object).filter(|o| !o.is_empty());
    of("rope_scaling").or(of("rope_parameters")).cloned().unwrap_or_default()
}

/// Whether the case that the table names for a key is this one, in which another value changes
/// nothing.
fn is_idle(key: &str, file: &Object, config: &ModelConfig) -> bool {
    let rope = rotation(file);
    let slides = config.windows.iter().any(Option::is_some);
    let set = |key: &str| number(&rope, key).is_some_and(|n| n != 0.0);
    match key {
        "max_position_embeddings" => config.context.map(|c| c as f64) > number(file, key),
        "intermediate_size" => no_dense(config),
        "rope_theta" => rope.contains_key("rope_theta"),
        "rope_parameters" => {
            file.get("rope_scaling").is_some_and(|v| v.as_object().is_some_and(|o| !o.is_empty()))
        }
        "original_max_position_embeddings" => config.rope.scaling == RopeScaling::None,
        "sliding_window" | "use_sliding_window" => !slides,
        "max_window_layers" => !slides || file.contains_key("layer_types"),
        ".original_max_position_embeddings" => {
            file.contains_key("original_max_position_embeddings")
        }
        ".type" => rope.contains_key("rope_type"),
        ".mscale" | ".mscale_all_dim" => {
            set("attention_factor") || !(set("mscale") && set("mscale_all_dim"))
        }
        _ => false,
    }
}

fn no_dense(config: &ModelConfig) -> bool {
    !config.mlps.iter().any(|mlp| matches!(mlp, uspx_model::config::Mlp::Dense { .. }))
}

/// Whether a file says with a key what its absence says too: the class's default, or what another
/// key says.
fn restates(change: &Change, file: &Object, class: &Object, config: &ModelConfig) -> bool {
    let inside = rotation(file);
    let (key, said) = match change.key.strip_prefix('.') {
        Some(key) => (key, inside.get(key)),
        None => (change.key.as_str(), file.get(&change.key)),
    };
    let Some(said) = said.filter(|said| !said.is_null()) else { return true };
    let equals = |other: &str| file.get(other) == Some(said);
    let original = number(&inside, "original_max_position_embeddings");
    let theta = match change.file["model_type"].as_str() {
        Some("gpt_oss") => 150_000.0,
        Some("mixtral") => 1_000_000.0,
        _ => 10_000.0,
    };
    match key {
        "num_key_value_heads" => config.kv_heads == config.heads,
        "head_dim" => config.head_dim * config.heads == config.hidden,
        "num_experts_per_tok" => equals("experts_per_token") || class.get(key) == Some(said),
        "experts_per_token" => equals("num_experts_per_tok"),
        // What the classes do by themselves: gpt-oss's layers interleaved, its own YaRN.
        "layer_types" | "rope_scaling" => change.file["model_type"] == "gpt_oss",
        "rope_type" => said == "default" || inside.contains_key("type"),
        "beta_fast" => said.as_f64() == Some(32.0),
        "beta_slow" => said.as_f64() == Some(1.0),
        "truncate" => said == if change.kind == "null" { &json!(false) } else { &json!(true) },
        "factor" => {
            number(file, "max_position_embeddings").zip(original).map(|(a, b)| a / b)
                == said.as_f64()
        }
        "rope_theta" => said.as_f64() == Some(theta) || equals("rope_theta"),
        "original_max_position_embeddings" => equals("max_position_embeddings"),
        "swiglu_limit" => said.as_f64() == Some(7.0),
        "rms_norm_eps" | "sliding_window" | "max_position_embeddings" | "max_window_layers" => {
            class.get(key) == Some(said)
        }
        _ => {
            class.get(key) == Some(said)
                || class.get(key) == Some(&Value::Null) && *said == json!([])
        }
    }
}

#[derive(Default, Debug)]
struct Counts {
    changed: usize,
    refused: usize,
    without_effect: usize,
    idle: usize,
    restated: usize,
    /// What must not be.
    wrong: Vec<String>,
}

impl Counts {
    /// Files the outcome of a change under one of the five, or says what is wrong with it.
    fn add(
        &mut self,
        family: Family,
        change: &Change,
        file: &Object,
        class: &Object,
        config: &ModelConfig,
    ) {
        let role = role(family, &change.key);
        let used = matches!(role, Some(Role::Used | Role::UsedUnless(_)));
        let what = || format!("{}: `{}` {}: {:?}", family.name(), change.key, change.kind, role);
        let idle = is_idle(&change.key, &change.file, config) || is_idle(&change.key, file, config);
        match ModelConfig::from_json(&Value::Object(change.file.clone()).to_string()) {
            Err(error) => {
                let name = change.key.trim_start_matches('.');
                let named = change.kind != "of another type" || error.to_string().contains(name);
                if matches!(role, Some(Role::NoEffect(_))) || !named {
                    self.wrong.push(format!("{}: {error}", what()));
                }
                self.refused += 1;
            }
            Ok(_) if used && change.kind == "of another type" => {
                self.wrong.push(format!("a wrong type: {}", what()))
            }
            Ok(found) if found != *config => self.changed += 1,
            Ok(_) if matches!(role, Some(Role::NoEffect(_))) => self.without_effect += 1,
            Ok(_) if idle && matches!(role, Some(Role::UsedUnless(_))) => self.idle += 1,
            Ok(_) if change.kind != "changed" && matches!(role, Some(Role::Only(_))) => {
                self.restated += 1
            }
            Ok(_) if change.kind != "changed" && restates(change, file, class, config) => {
                self.restated += 1
            }
            Ok(_) => self.wrong.push(format!(
                "passed over: {} in {}",
                what(),
                Value::Object(change.file.clone())
            )),
        }
    }
}

#[test]
fn no_key_is_passed_over() {
    let golden = object(&data().join("config_meanings.json"));
    let mut wrong = Vec::new();
    for family in Family::ALL {
        let class = golden["classes"][family.name()].as_object().unwrap();
        let mut counts = Counts::default();
        for file in files(family, &golden) {
            let config = ModelConfig::from_json(&Value::Object(file.clone()).to_string()).unwrap();
            let nested = ["rope_scaling", "rope_parameters"]
                .into_iter()
                .filter(|key| file.get(*key).is_some_and(Value::is_object));
            let places = std::iter::once(None).chain(nested.map(Some));
            for change in places.flat_map(|within| changes(&file, within, class)) {
                counts.add(family, &change, &file, class, &config);
            }
        }
        println!("{}: {counts:?}", family.name());
        assert!(
            counts.changed >= 40 && counts.refused >= 40 && counts.without_effect >= 40,
            "{counts:?}"
        );
        wrong.extend(counts.wrong);
    }
    assert!(wrong.is_empty(), "{}: {wrong:#?}", wrong.len());
}

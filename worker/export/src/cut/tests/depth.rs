//! Dense models without whole layers.

use super::*;
use safetensors::tensor::TensorView;
use std::collections::BTreeSet;

fn student() -> PathBuf {
    root().join("cli/assets/nano/student")
}

fn without(folder: &Path, gone: &[u32]) -> Mask {
    let shape = ModelConfig::open(folder).unwrap().shape();
    Mask::without_layers(
        fingerprint(folder).unwrap(),
        &shape,
        &gone.iter().copied().collect::<BTreeSet<u32>>(),
    )
}

fn with_config(folder: &Path, keys: Value) -> Value {
    let mut config = hf_json(folder, "config.json");
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    config
}

/// Every tensor with the file that it is to lie in; `change` may give it other bytes.
fn write(folder: &Path, from: &Tensors, file: impl Fn(&str) -> String) {
    let mut files: BTreeMap<String, Vec<(&str, TensorView<'_>)>> = BTreeMap::new();
    let mut map = serde_json::Map::new();
    for (name, (_, dtype, shape, bytes)) in from {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        files.entry(file(name)).or_default().push((name, view));
        map.insert(name.clone(), json!(file(name)));
    }
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    for (file, tensors) in files {
        safetensors::serialize_to_file(tensors, None, &folder.join(file)).unwrap();
    }
    let index = json!({"metadata": {}, "weight_map": map});
    if !folder.join("model.safetensors").is_file() {
        fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
}

/// The first, the last and one between; windows, biases of queries, tied heads.
#[test]
fn every_dense_architecture_without_whole_layers_is_the_masked_one() {
    let cases: [(&str, &[u32], usize); 8] = [
        ("llama2", &[0], 2),
        ("llama31", &[1], 2),
        ("llama32-tied", &[0], 2),
        ("mistral-full", &[1], 2),
        ("mistral-window", &[1], 3),
        ("qwen2", &[0], 2),
        ("qwen2-window", &[0, 2], 3),
        ("qwen3", &[1], 2),
    ];
    for (name, gone, layers) in cases {
        let folder = architecture(name);
        let (out, report) = same_as(folder.path(), &without(folder.path(), gone));
        let left = layers - gone.len();
        assert_eq!(ModelConfig::open(out.path()).unwrap().windows.len(), left, "{name}");
        let report = serde_json::to_value(report).unwrap();
        assert_eq!(
            (&report["layers"], &report["before"]["layers"]),
            (&json!(left), &json!(layers)),
            "{name}"
        );
    }
}

#[test]
fn layers_that_stay_are_the_sources_bit_for_bit_under_their_new_numbers() {
    let (out, report) = same_as(&student(), &without(&student(), &[0, 2]));
    let (before, after) = (tensors(&student()), tensors(out.path()));
    let (mut moved, mut gone) = (0, 0);
    for (name, (_, dtype, shape, bytes)) in &before {
        let now = match uspx_model::in_layer(name) {
            Some((0 | 2, _)) => {
                gone += 1;
                continue;
            }
            Some((layer, within)) => {
                moved += 1;
                format!("model.layers.{}.{within}", layer / 2)
            }
            None => name.clone(),
        };
        let (_, dtype_now, shape_now, bytes_now) = &after[&now];
        assert_eq!((dtype, shape, bytes), (dtype_now, shape_now, bytes_now), "{name}");
    }
    assert_eq!((moved, gone), (2 * 9, 2 * 9));
    assert_eq!(after.len(), before.len() - gone);
    let mut config = hf_json(&student(), "config.json");
    config["num_hidden_layers"] = json!(2);
    assert_eq!(hf_json(out.path(), "config.json"), config);
    let note = hf_json(out.path(), NOTE);
    assert_eq!(note["layer_of_source"], json!([1, 3]));
    assert_eq!(note["source"]["sizes"]["layers"], json!(4));
    // Cut once more, it is like any other.
    let again = same_as(out.path(), &without(out.path(), &[1])).1;
    assert!(again.bytes < report.bytes && again.bytes_before == report.bytes);
}

/// Of the layers that stay half of the heads and a third of the channels go besides.
#[test]
fn one_mask_cuts_layers_whole_and_the_others_alike() {
    let mut mask = without(&student(), &[1]);
    for (layer, heads) in [(0, [0, 2]), (2, [1, 3]), (3, [1, 2])] {
        mask.keep.0.get_mut(&UnitKind::Head).unwrap()[layer] = heads.to_vec();
        let channels = (0..384).filter(|at| at % 3 != layer as u32 % 3).collect();
        mask.keep.0.get_mut(&UnitKind::Channel).unwrap()[layer] = channels;
    }
    let (_, report) = same_as(&student(), &mask);
    let Kept::Dense { now, .. } = report.kept else { panic!("{report:?}") };
    assert_eq!((now.layers, now.heads, now.kv_heads, now.channels), (3, 2, 2, 256));
    // A layer that keeps one head or channel is not whole gone.
    mask.keep.0.get_mut(&UnitKind::Head).unwrap()[1] = vec![0];
    assert!(refused(&student(), &mask).contains("goes whole only where no head and no channel"));
}

/// What config.json says of each layer goes with it.
#[test]
fn lists_and_numbers_of_layers_are_shortened() {
    let folder = architecture("qwen2-window");
    let types = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    let written = |keys: Value, gone: &[u32]| {
        let config = with_config(folder.path(), keys);
        let (out, _) = same_as(folder.path(), &without(folder.path(), gone));
        (config, hf_json(out.path(), "config.json"))
    };
    for (gone, left, first) in
        [(0, json!([types[1], types[2]]), 0), (1, json!([types[0], types[2]]), 1)]
    {
        let (mut config, now) = written(json!({"layer_types": types}), &[gone]);
        let keys = json!({"num_hidden_layers": 2, "layer_types": left, "max_window_layers": first});
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        assert_eq!(now, config);
    }
    // The one number instead of the list, beyond all layers, and missing.
    let (_, now) = written(json!({"layer_types": null, "max_window_layers": 2}), &[0]);
    assert_eq!(now["max_window_layers"], json!(1));
    let (_, now) = written(json!({"layer_types": null, "max_window_layers": 9}), &[0]);
    assert_eq!((&now["max_window_layers"], &now["layer_types"]), (&json!(9), &Value::Null));
    let mistral = architecture("mistral-window");
    let all = ["sliding_attention"].repeat(3);
    with_config(mistral.path(), json!({ "layer_types": all }));
    let (out, _) = same_as(mistral.path(), &without(mistral.path(), &[2]));
    let now = hf_json(out.path(), "config.json");
    assert_eq!(now["layer_types"], json!(["sliding_attention", "sliding_attention"]));
    assert!(now.get("max_window_layers").is_none());
}

/// A file of a layer each; that of a layer that goes is not there.
#[test]
fn a_checkpoint_in_shards_loses_those_that_nothing_is_left_of() {
    let folder = tempfile::tempdir().unwrap();
    copied(&student(), folder.path(), |_| true);
    let file = |name: &str| match uspx_model::in_layer(name) {
        Some((layer, _)) => format!("model-{layer}.safetensors"),
        None => "model-rest.safetensors".to_owned(),
    };
    write(folder.path(), &tensors(&student()), file);
    let (out, report) = same_as(folder.path(), &without(folder.path(), &[1]));
    let after = tensors(out.path());
    assert!(!out.path().join("model-1.safetensors").exists());
    assert_eq!(after["model.layers.1.mlp.up_proj.weight"].0, "model-2.safetensors");
    let index = hf_json(out.path(), "model.safetensors.index.json");
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map.len(), after.len());
    assert!(map.iter().all(|(name, file)| after[name].0 == *file));
    assert_eq!(index["metadata"]["total_size"].as_u64(), Some(report.bytes));
}

#[test]
fn what_would_be_no_model_or_another_is_refused_with_the_remedy() {
    let reason = refused(&student(), &without(&student(), &[0, 1, 2, 3]));
    assert!(reason.contains("no model is left") && reason.contains("--spread layers"), "{reason}");
    // Attention's output has a bias that a layer without heads adds all the same.
    let biased = architecture("llama-bias");
    let mask = without(biased.path(), &[1]);
    let reason = refused(biased.path(), &mask);
    assert!(
        ["layers.1.self_attn.o_proj.bias", "--spread uniform"].iter().all(|w| reason.contains(w)),
        "{reason}"
    );
    // Zeros add nothing.
    let mut all = tensors(biased.path());
    all.get_mut("model.layers.1.self_attn.o_proj.bias").unwrap().3.fill(0);
    write(biased.path(), &all, |_| "model.safetensors".to_owned());
    same_as(biased.path(), &without(biased.path(), &[1]));
}

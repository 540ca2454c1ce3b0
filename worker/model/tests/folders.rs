//! Whole folders that were misread once: an index left beside newer weights, a configuration that
//! is not of these weights, a head of its own, YaRN as its users write it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uspx_domain::parse_prompts;
use uspx_model::batch::Batch;
use uspx_model::checkpoint::Checkpoint;
use uspx_model::config::ModelConfig;
use uspx_model::taps::NoTaps;
use uspx_model::transformer::Transformer;
use uspx_model::{Holding, LoadedModel, Placement, batches, loss};

const PROMPTS: usize = 3;
const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A copy of a shipped model, to change.
fn copy(which: &str) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root().join("cli/assets/nano").join(which)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

/// The student with `change` made in its config.json.
fn student(change: Value) -> TempDir {
    let folder = copy("student");
    edit(folder.path(), |config| {
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone())
    });
    folder
}

fn edit(folder: &Path, change: impl Fn(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

fn open(folder: &Path) -> Result<LoadedModel, String> {
    let placement = Placement::new(Holding::Stored, DType::F32, &Device::Cpu);
    LoadedModel::open(folder, placement).map_err(|e| e.to_string())
}

/// Summed losses of a few held-out references.
fn nats(folder: &Path) -> Vec<f64> {
    let model = open(folder).unwrap();
    let text =
        std::fs::read_to_string(root().join("cli/assets/prompts/cli-heldout.jsonl")).unwrap();
    let mut prompts = parse_prompts(&text, false).unwrap().prompts;
    prompts.truncate(PROMPTS);
    let sequences = model.readable(&prompts).unwrap().sequences;
    let each = |(_, batch): (Vec<usize>, Batch)| {
        let frame = model.transformer.frame(&batch).unwrap();
        let x = model.transformer.forward(&batch, &frame, &mut NoTaps).unwrap();
        loss::per_sequence(&model.transformer.response_nll(&x, &batch).unwrap(), &batch).unwrap()
    };
    batches(&sequences, 4096).unwrap().into_iter().flat_map(each).collect()
}

fn refusal(folder: &Path) -> String {
    let error = open(folder).err().unwrap();
    assert!(error.contains(&folder.display().to_string()), "no folder in: {error}");
    assert!(!error.contains("Some(") && !error.contains("BF16"), "{error}");
    error
}

fn save(folder: &Path, file: &str, tensors: &HashMap<String, Tensor>) {
    candle_core::safetensors::save(tensors, folder.join(file)).unwrap();
}

fn tensors(folder: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap()
}

#[test]
fn a_single_file_is_read_before_an_index_beside_it() {
    let folder = copy("student");
    let wanted = nats(folder.path());
    let zeros = tensors(folder.path())
        .into_iter()
        .map(|(name, t)| (name, t.zeros_like().unwrap()))
        .collect();
    let shard = "model-00001-of-00001.safetensors";
    save(folder.path(), shard, &zeros);
    let map: serde_json::Map<String, Value> =
        zeros.keys().map(|name| (name.clone(), json!(shard))).collect();
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(nats(folder.path()), wanted);
    std::fs::remove_file(folder.path().join(shard)).unwrap();
    assert_eq!(nats(folder.path()), wanted);
}

#[test]
fn weights_stored_otherwise_than_the_configuration_says_are_explained() {
    let blocks = copy("teacher");
    edit(blocks.path(), |config| config["quantization_config"] = Value::Null);
    let error = refusal(blocks.path());
    assert!(error.contains("MXFP4") && error.contains("add \"quantization_config\""), "{error}");

    let floats = root().join("tests/data/architectures/gpt-oss-floats");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(floats.join("config.json")).unwrap()).unwrap();
    config["quantization_config"] = json!({"quant_method": "mxfp4"});
    let config = ModelConfig::from_json(&config.to_string()).unwrap();
    let placement = Placement::new(Holding::Stored, DType::F32, &Device::Cpu);
    let opened = Checkpoint::open(&floats)
        .and_then(|checkpoint| Transformer::load(config, checkpoint, placement));
    let error = opened.err().unwrap().to_string();
    for word in ["gpt-oss-floats", "mxfp4", "stored as bf16", "delete quantization_config"] {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
}

#[test]
fn yarn_counts_as_its_users_write_it() {
    let yarn = |keys: Value| {
        let mut scaling = json!({"type": "yarn", "factor": 4.0});
        scaling.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        scaling
    };
    let original = |n: usize| json!({"original_max_position_embeddings": n});
    let nats = |change: Value| nats(student(change).path());
    // The context as it was trained, left in max_position_embeddings: sequences of more than 32
    // tokens run.
    let as_documented =
        nats(json!({"max_position_embeddings": 32, "rope_scaling": yarn(original(32))}));
    assert_eq!(
        as_documented,
        nats(json!({"max_position_embeddings": 128, "rope_scaling": yarn(original(32))}))
    );
    // At the top level, where it counts before the one within.
    let at_the_top =
        json!({"original_max_position_embeddings": 32, "rope_scaling": yarn(original(8192))});
    assert_eq!(as_documented, nats(at_the_top));
    assert_ne!(as_documented, nats(json!({"rope_scaling": yarn(original(8192))})));
    // No factor: the ratio of the two contexts.
    let inferred =
        json!({"type": "yarn", "factor": null, "original_max_position_embeddings": 2048});
    assert_eq!(
        nats(json!({"rope_scaling": inferred})),
        nats(json!({"rope_scaling": yarn(original(2048))}))
    );
}

#[test]
fn a_head_of_its_own_wins_over_a_configuration_that_ties_it() {
    let folder = copy("student");
    let wanted = nats(folder.path());
    let mut all = tensors(folder.path());
    // The same values once more: nothing changes, and the model stays tied.
    all.insert(HEAD.into(), all[EMBEDDING].clone());
    save(folder.path(), "model.safetensors", &all);
    assert_eq!(nats(folder.path()), wanted);
    assert!(open(folder.path()).unwrap().transformer.config().tied);
    // Other values are used as they are stored.
    let other = all[EMBEDDING].affine(2.0, 0.0).unwrap();
    all.insert(HEAD.into(), other);
    save(folder.path(), "model.safetensors", &all);
    let own = nats(folder.path());
    assert_ne!(own, wanted);
    edit(folder.path(), |config| config["tie_word_embeddings"] = json!(false));
    assert_eq!(nats(folder.path()), own);
    // Under the head's name alone, both are it.
    edit(folder.path(), |config| config["tie_word_embeddings"] = json!(true));
    let embedding = all.remove(EMBEDDING).unwrap();
    all.insert(HEAD.into(), embedding);
    save(folder.path(), "model.safetensors", &all);
    assert_eq!(nats(folder.path()), wanted);
}

#[test]
fn what_is_wrong_with_a_tensor_names_its_folder() {
    let folder = copy("student");
    let mut all = tensors(folder.path());
    let gone = all.remove("model.norm.weight").unwrap();
    save(folder.path(), "model.safetensors", &all);
    assert!(refusal(folder.path()).contains("`model.norm.weight` is not in the checkpoint"));
    all.insert("model.norm.weight".into(), gone.narrow(0, 0, 64).unwrap());
    save(folder.path(), "model.safetensors", &all);
    assert!(refusal(folder.path()).contains("`model.norm.weight` has shape [64]"));
    let wrong = student(json!({"hidden_size": "128"}));
    assert!(
        refusal(wrong.path())
            .contains("config.json: `hidden_size` is \"128\": a whole number is expected")
    );
}

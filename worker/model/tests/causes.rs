//! Faults while a model is read, and what is said of them: the file and the cause, once.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Var};
use std::fs::File;
use std::path::Path;
use tempfile::TempDir;
use uspx_domain::Prompt;
use uspx_model::batch::Batch;
use uspx_model::config::ModelConfig;
use uspx_model::taps::NoTaps;
use uspx_model::{Holding, LoadedModel, ModelError, Placement};

/// A copy of the shipped teacher, to spoil.
fn teacher() -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/teacher");
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

fn streamed(folder: &Path) -> (LoadedModel, Batch) {
    let placement = Placement::new(Holding::Streamed, DType::F32, &Device::Cpu);
    let model = LoadedModel::open(folder, placement).unwrap();
    let prompt = Prompt { id: "p".into(), prompt: "List the files".into(), ..Prompt::default() };
    let sequence = model.chat.sequence(&prompt, Some("ls")).unwrap();
    let batch = Batch::new(&[&sequence]).unwrap();
    (model, batch)
}

/// Both shards end behind their headers.
fn shorten(folder: &Path) {
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        File::options().write(true).open(folder.join(shard)).unwrap().set_len(64).unwrap();
    }
}

/// The file and the cause, and neither twice.
fn told_once(error: &ModelError, words: &[&str]) {
    let said = error.to_string();
    for word in words {
        assert_eq!(said.matches(word).count(), 1, "`{word}` in: {said}");
    }
    assert!(!said.contains("tensor operation failed"), "{said}");
}

const SHORTER: [&str; 2] = ["-of-00002.safetensors", "became shorter while"];

#[test]
fn a_shard_that_shrinks_under_a_streamed_model_is_named() {
    let folder = teacher();
    let (model, batch) = streamed(folder.path());
    let frame = model.transformer.frame(&batch).unwrap();
    shorten(folder.path());
    let error = model.transformer.forward(&batch, &frame, &mut NoTaps).unwrap_err();
    told_once(&error, &SHORTER);
}

#[test]
fn it_is_named_too_where_the_tensor_library_asks_for_a_gradient() {
    let folder = teacher();
    let (model, batch) = streamed(folder.path());
    let frame = model.transformer.frame(&batch).unwrap();
    let x = model.transformer.forward(&batch, &frame, &mut NoTaps).unwrap();
    let x = Var::from_tensor(&x.detach()).unwrap();
    let loss = model.transformer.response_nll(x.as_tensor(), &batch).unwrap().sum_all().unwrap();
    shorten(folder.path());
    let error = ModelError::from(loss.backward().unwrap_err());
    assert!(matches!(error, ModelError::Malformed { .. }), "{error}");
    told_once(&error, &SHORTER);
}

#[cfg(unix)]
#[test]
fn the_systems_reason_is_told_once() {
    let folder = teacher();
    let path = folder.path().join("config.json");
    std::fs::remove_file(&path).unwrap();
    // A link to itself, which nobody can read, whatever they may.
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = ModelConfig::open(folder.path()).unwrap_err();
    let reason = File::open(&path).unwrap_err().to_string();
    told_once(&error, &["cannot read", "config.json", &reason]);
}

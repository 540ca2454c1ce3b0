//! What lies beside the weights: index, config.json with the new numbers, the other files as they are,
//! and a note of where all this comes from.

use super::CutRequest;
use super::plan::Plan;
use super::tensors::Written;
use crate::hf::{read_json, set, write_json};
use crate::{ExportError, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use uspx_model::checkpoint::{INDEX, SINGLE};

/// The note's file.
pub const NOTE: &str = "uspx-cut.json";

/// Ends of files that hold weights in one form or another.
const WEIGHTS: [&str; 12] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "gguf",
    "ggml",
    "h5",
    "msgpack",
    "onnx",
    "npz",
    "tflite",
];

/// Writes the index of a model in shards.
pub fn write_index(shards: &[(String, Vec<Written>)], out: &Path) -> Result<()> {
    if let [(only, _)] = shards
        && only == SINGLE
    {
        return Ok(());
    }
    let names = |(file, tensors): &(String, Vec<Written>)| {
        tensors.iter().map(|t| (t.name.clone(), file.clone())).collect::<Vec<_>>()
    };
    let map: BTreeMap<String, String> = shards.iter().flat_map(names).collect();
    let total: u64 = shards.iter().flat_map(|(_, tensors)| tensors).map(Written::bytes).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    write_json(&out.join(INDEX), &index)
}

/// Writes the source's config.json with the keys that change.
pub fn write_config(request: &CutRequest<'_>, plan: &Plan, out: &Path) -> Result<()> {
    let mut config = read_json(&request.folder.join("config.json"))?;
    for (key, value) in plan.keys(&request.source.config, &config) {
        set(&mut config, key, value);
    }
    write_json(&out.join("config.json"), &config)
}

/// Copies the files that are no weights. Those that are and were not read are named.
pub fn copy_others(folder: &Path, out: &Path) -> Result<Vec<String>> {
    let mut left_out = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(ExportError::reading(folder))? {
        let path = entry.map_err(ExportError::reading(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !path.is_file() || name.starts_with('.') || out.join(&name).exists() || name == NOTE {
            continue;
        }
        if holds_weights(&name) {
            left_out.push(name);
            continue;
        }
        std::fs::copy(&path, out.join(&name)).map_err(ExportError::reading(&path))?;
    }
    left_out.sort();
    Ok(left_out)
}

/// Whether a file holds weights, or says in which files they are.
fn holds_weights(name: &str) -> bool {
    let name = name.strip_suffix(".index.json").unwrap_or(name);
    name.rsplit_once('.').is_some_and(|(_, end)| WEIGHTS.contains(&end))
}

/// Writes where the model comes from. What the source's own note said stands within.
pub fn write_note(request: &CutRequest<'_>, plan: &Plan, out: &Path) -> Result<()> {
    let earlier = request.folder.join(NOTE);
    let earlier = earlier.is_file().then(|| read_json(&earlier)).transpose()?;
    let (of_source, here) = plan.note();
    let mut note = json!({
        "made_by": concat!("uspx ", env!("CARGO_PKG_VERSION")),
        "source": {
            "fingerprint": request.fingerprint,
            "architecture": request.source.config.architecture,
            "cut": earlier,
        },
        "mask": request.mask,
    });
    if let Some(source) = note.get_mut("source") {
        join(source, of_source);
        if let Some(adapter) = request.adapter {
            set(source, "adapter", adapter.hex().into());
        }
    }
    join(&mut note, here);
    write_json(&out.join(NOTE), &note)
}

/// Adds the keys of one object to another.
fn join(to: &mut Value, from: Value) {
    if let Value::Object(from) = from {
        from.into_iter().for_each(|(key, value)| set(to, &key, value));
    }
}

/// Brings everything to the disk: the folder is whole when it gets its name.
pub fn sync(out: &Path) -> Result<()> {
    for entry in std::fs::read_dir(out).map_err(ExportError::reading(out))? {
        let path = entry.map_err(ExportError::reading(out))?.path();
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(ExportError::writing(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_weights_are_told_from_others() {
        for name in [
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "pytorch_model.bin.index.json",
            "consolidated.00.pth",
            "model.Q4_K_M.gguf",
        ] {
            assert!(holds_weights(name), "{name}");
        }
        for name in
            ["tokenizer.json", "chat_template.jinja", "README.md", "LICENSE", "tekken.model"]
        {
            assert!(!holds_weights(name), "{name}");
        }
    }
}

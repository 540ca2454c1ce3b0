//! Checkpoints of random weights, of a published model's shapes unless told otherwise, written as the hub
//! has them.

mod gpt_oss;
mod llama;
mod tensors;
mod writer;

pub use gpt_oss::GptOss;
pub use llama::Llama;

use crate::error::{BenchError, Result};
use serde_json::Value;
use serde_json::json;
use std::path::{Path, PathBuf};
use tensors::{Noise, Tensor};
use writer::Shard;

/// The tokenizer comes from a model that ships with uspx: its ids are a subset of the large vocabulary.
const DONORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../cli/assets/nano");
/// Tokens of theirs.
const TOKENIZER: usize = 2048;

/// A kind of model, with its dimensions.
pub trait Layout {
    /// Refuses what is not a model.
    ///
    /// # Errors
    /// The first rule that is broken.
    fn check(&self) -> Result<()>;
    /// The config.json, with the keys of the published model.
    fn config(&self) -> Value;
    /// All tensors, in the order in which they are written.
    fn tensors(&self) -> Vec<Tensor>;
    /// Which of the shipped models its tokenizer is.
    fn donor(&self) -> &'static str;
}

/// Refuses what breaks one of the rules: whether it holds, and how it reads.
fn keep_to(rules: &[(bool, &str)]) -> Result<()> {
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err(BenchError::Shape((*rule).to_owned())),
        None => Ok(()),
    }
}

/// What must be left on the disk beside the checkpoint.
const SPARE: u64 = 1 << 30;

/// Bytes of a shard: as on the hub, below 5 GB.
const SHARD: u64 = 4_900_000_000;

/// Writes the checkpoint into `folder`; its size in bytes. A checkpoint that is there already,
/// whole, is left alone.
///
/// # Errors
/// Shapes that make no model, a disk that is too small, a file that cannot be written.
pub fn write(folder: &Path, layout: &dyn Layout, seed: u64) -> Result<u64> {
    layout.check()?;
    let shards = tensors::sharded(layout.tensors(), SHARD);
    let total: u64 = shards.iter().flatten().map(Tensor::bytes).sum();
    let config = pretty(&layout.config());
    if is_whole(folder, &config) {
        return Ok(total);
    }
    std::fs::create_dir_all(folder).map_err(BenchError::file(folder))?;
    check_space(folder, total)?;
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        let from = Path::new(DONORS).join(layout.donor()).join(name);
        std::fs::copy(&from, folder.join(name)).map_err(BenchError::file(&from))?;
    }
    let (noise, mut map) = (Noise::new(seed), serde_json::Map::new());
    for (at, tensors) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", at + 1, shards.len());
        let mut shard = Shard::create(&folder.join(&file), tensors)?;
        for tensor in tensors {
            shard.fill(tensor, &noise)?;
            map.insert(tensor.name.clone(), file.clone().into());
        }
        shard.finish()?;
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    text(&folder.join("model.safetensors.index.json"), &pretty(&index))?;
    // Last, so that a folder with a configuration is whole.
    text(&folder.join("config.json"), &config)?;
    Ok(total)
}

/// The checkpoint's weight files.
///
/// # Errors
/// A folder that cannot be read.
pub fn shards(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(BenchError::file(folder))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    paths.sort();
    Ok(paths)
}

fn is_whole(folder: &Path, config: &str) -> bool {
    std::fs::read_to_string(folder.join("config.json")).is_ok_and(|found| found == config)
}

fn check_space(folder: &Path, bytes: u64) -> Result<()> {
    let free = fs4::available_space(folder).map_err(BenchError::file(folder))?;
    if free < bytes + SPARE {
        let (free, needed) = (free as f64 / 1e9, (bytes + SPARE) as f64 / 1e9);
        return Err(BenchError::Disk { path: folder.to_owned(), free, needed });
    }
    Ok(())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn text(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(BenchError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::gpt_oss::small;

    /// Reads a tensor's bytes back as any reader of safetensors would: by the header's offsets.
    fn tensor(folder: &Path, name: &str) -> (Vec<u64>, Vec<u8>) {
        let index: serde_json::Value = serde_json::from_slice(
            &std::fs::read(folder.join("model.safetensors.index.json")).unwrap(),
        )
        .unwrap();
        let file = std::fs::read(folder.join(index["weight_map"][name].as_str().unwrap())).unwrap();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
        let place =
            |at: usize| 8 + length + header[name]["data_offsets"][at].as_u64().unwrap() as usize;
        let shape =
            header[name]["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        (shape, file[place(0)..place(1)].to_vec())
    }

    #[test]
    fn files_hold_what_their_headers_say_and_values_are_in_range() {
        let folder = tempfile::tempdir().unwrap();
        let total = write(folder.path(), &small(), 0).unwrap();
        let (shape, bytes) = tensor(folder.path(), "model.layers.1.self_attn.q_proj.weight");
        assert_eq!(shape, [128, 64]);
        let values: Vec<f32> =
            bytes.chunks(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        let deviation = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
        assert!((0.018..0.022).contains(&deviation), "{deviation}");
        let (shape, scales) = tensor(folder.path(), "model.layers.0.mlp.experts.down_proj_scales");
        assert_eq!(shape, [4, 64, 2]);
        assert!(scales.iter().all(|s| tensors::SCALES.contains(s)), "{scales:?}");
        let (_, norm) = tensor(folder.path(), "model.norm.weight");
        assert!(norm.chunks(2).all(|b| b == [0x80, 0x3f]), "a norm is 1");
        let on_disk: u64 =
            shards(folder.path()).unwrap().iter().map(|p| p.metadata().unwrap().len()).sum();
        assert!(on_disk > total && on_disk < total + 100_000);
    }

    #[test]
    fn a_whole_checkpoint_is_left_alone_and_other_shapes_are_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &small(), 0).unwrap();
        let path = &shards(folder.path()).unwrap()[0];
        let before = std::fs::read(path).unwrap();
        write(folder.path(), &small(), 1).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), before);
        write(folder.path(), &GptOss { layers: 1, ..small() }, 1).unwrap();
        assert_ne!(std::fs::read(path).unwrap(), before);
    }

    #[test]
    fn the_defaults_have_the_size_of_gpt_oss_20b() {
        let shards = tensors::sharded(GptOss::default().tensors(), SHARD);
        let sizes: Vec<u64> = shards.iter().map(|s| s.iter().map(Tensor::bytes).sum()).collect();
        assert!(sizes.iter().all(|s| *s < 5_000_000_000), "{sizes:?}");
        // metadata.total_size of the published model's index.
        assert_eq!(sizes.iter().sum::<u64>(), 13_761_264_768);
    }

    #[test]
    fn a_llama_has_the_size_of_the_published_8b() {
        let bytes: u64 = Llama::default().tensors().iter().map(Tensor::bytes).sum();
        // metadata.total_size of the published model's index.
        assert_eq!(bytes, 16_060_522_496);
        let folder = tempfile::tempdir().unwrap();
        let small = Llama { layers: 1, hidden: 64, inner: 96, heads: 4, kv_heads: 2, vocab: 2048 };
        write(folder.path(), &small, 0).unwrap();
        let (shape, _) = tensor(folder.path(), "model.layers.0.self_attn.k_proj.weight");
        assert_eq!(shape, [32, 64]);
        assert!(Llama { heads: 3, ..small }.check().is_err());
    }

    #[test]
    fn a_full_disk_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let huge = GptOss { layers: 1_000_000, ..GptOss::default() };
        let error = write(folder.path(), &huge, 0).unwrap_err().to_string();
        assert!(
            error.contains("GB free") && std::fs::read_dir(folder.path()).unwrap().next().is_none(),
            "{error}"
        );
    }
}

//! Weights on disk: the safetensors shards of a Hugging Face folder, read piece by piece with positioned reads.
//!
//! No memory map: mapped pages count as memory, and a file that shrinks under one ends the process.

use crate::{ModelError, Result, mxfp4};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The tensors of a model folder, by name; or tensors that another reader holds in memory.
pub struct Checkpoint {
    shards: Vec<Shard>,
    place: HashMap<String, Place>,
    ready: HashMap<String, Tensor>,
}

struct Shard {
    path: PathBuf,
    file: File,
}

#[derive(Clone)]
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    offset: u64,
    bytes: usize,
}

/// The largest header accepted, as in the format's own reader.
const MAX_HEADER: u64 = 100_000_000;

impl Checkpoint {
    /// Opens the shards of `folder`: those of `model.safetensors.index.json`, or `model.safetensors`.
    ///
    /// # Errors
    /// A missing or truncated shard, or a header that does not parse, named with its path.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut this = Self { shards: Vec::new(), place: HashMap::new(), ready: HashMap::new() };
        for path in shard_paths(folder)? {
            this.add(path)?;
        }
        Ok(this)
    }

    /// A checkpoint whose tensors are in memory already.
    pub fn in_memory(tensors: HashMap<String, Tensor>) -> Self {
        Self { shards: Vec::new(), place: HashMap::new(), ready: tensors }
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                ModelError::malformed(&path, "this shard is missing: fetch the model again, or copy the file here")
            }
            _ => ModelError::read(&path)(e),
        })?;
        let (data_at, metadata) = header(&path, &file)?;
        let shard = self.shards.len();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let place = Place {
                shard,
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: data_at + start as u64,
                bytes: end - start,
            };
            self.place.insert(name, place);
        }
        self.shards.push(Shard { path, file });
        Ok(())
    }

    /// Whether a tensor is there.
    pub fn has(&self, name: &str) -> bool {
        self.place.contains_key(name) || self.ready.contains_key(name)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self.place.keys().chain(self.ready.keys()).map(String::as_str).collect();
        names.into_iter().collect()
    }

    /// A tensor of the shards as it is stored: type, shape and little-endian bytes.
    ///
    /// # Errors
    /// Missing, or unreadable.
    pub fn stored(&self, name: &str) -> Result<(Dtype, Vec<usize>, Vec<u8>)> {
        let place = self.find(name)?;
        Ok((place.dtype, place.shape.clone(), self.bytes(name, place)?))
    }

    fn find(&self, name: &str) -> Result<&Place> {
        self.place.get(name).ok_or_else(|| ModelError::tensor(name, "is not in the checkpoint"))
    }

    fn bytes(&self, name: &str, place: &Place) -> Result<Vec<u8>> {
        let missing = || ModelError::tensor(name, "names a shard that is not open");
        let shard = self.shards.get(place.shard).ok_or_else(missing)?;
        let mut bytes = vec![0; place.bytes];
        shard.file.read_exact_at(&mut bytes, place.offset).map_err(ModelError::read(&shard.path))?;
        Ok(bytes)
    }

    /// Reads a float tensor as `dtype`; its shape must be `shape`.
    ///
    /// # Errors
    /// Missing, of another shape, or of a type that is no float.
    pub fn float(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        if let Some(tensor) = self.ready.get(name) {
            check_shape(name, tensor.dims(), shape)?;
            return Ok(tensor.to_device(device)?.to_dtype(dtype)?);
        }
        let place = self.find(name)?;
        check_shape(name, &place.shape, shape)?;
        let stored = match place.dtype {
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            Dtype::F32 => DType::F32,
            other => return Err(ModelError::tensor(name, format!("is stored as {other:?}, a float was expected"))),
        };
        let bytes = self.bytes(name, place)?;
        Ok(Tensor::from_raw_buffer(&bytes, stored, shape, device)?.to_dtype(dtype)?)
    }

    /// Reads an MXFP4 pair `{name}_blocks`, `{name}_scales` and expands it: `[experts, rows, columns]`.
    ///
    /// # Errors
    /// Missing, of another shape, or not stored as bytes.
    pub fn mxfp4(&self, name: &str, shape: (usize, usize, usize), dtype: DType, device: &Device) -> Result<Tensor> {
        let (experts, rows, columns) = shape;
        let blocks = self.raw(&format!("{name}_blocks"), &[experts, rows, columns / 32, 16])?;
        let scales = self.raw(&format!("{name}_scales"), &[experts, rows, columns / 32])?;
        let values = mxfp4::expand(&blocks, &scales)
            .ok_or_else(|| ModelError::tensor(name, "blocks and scales disagree in length"))?;
        Ok(Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
    }

    fn raw(&self, name: &str, shape: &[usize]) -> Result<Vec<u8>> {
        let place = self.find(name)?;
        check_shape(name, &place.shape, shape)?;
        if place.dtype != Dtype::U8 {
            return Err(ModelError::tensor(name, format!("is stored as {:?}, bytes were expected", place.dtype)));
        }
        self.bytes(name, place)
    }
}

fn check_shape(name: &str, got: &[usize], want: &[usize]) -> Result<()> {
    if got == want {
        return Ok(());
    }
    Err(ModelError::tensor(name, format!("has shape {got:?}, config.json asks for {want:?}")))
}

/// The weight files of a model folder, in a fixed order.
///
/// # Errors
/// No weights in the folder, or an index that does not parse.
pub fn shard_paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        let single = folder.join("model.safetensors");
        if single.exists() {
            return Ok(vec![single]);
        }
        let reason = "has neither model.safetensors nor model.safetensors.index.json: is this a model folder?";
        return Err(ModelError::malformed(folder, reason));
    }
    let text = std::fs::read_to_string(&index).map_err(ModelError::read(&index))?;
    let parsed: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| ModelError::malformed(&index, e.to_string()))?;
    let map = parsed.get("weight_map").and_then(|m| m.as_object());
    let map = map.ok_or_else(|| ModelError::malformed(&index, "has no `weight_map`"))?;
    let names: BTreeSet<&str> = map.values().filter_map(|v| v.as_str()).collect();
    if names.is_empty() || names.iter().any(|n| n.contains('/') || n.contains("..")) {
        return Err(ModelError::malformed(&index, "`weight_map` must name files of this folder"));
    }
    Ok(names.into_iter().map(|n| folder.join(n)).collect())
}

fn header(path: &Path, file: &File) -> Result<(u64, Metadata)> {
    let length = file.metadata().map_err(ModelError::read(path))?.len();
    let truncated = |needed: u64| {
        let reason = format!("is truncated: {length} bytes of {needed}. Fetch this shard again");
        ModelError::malformed(path, reason)
    };
    let mut size = [0; 8];
    if length < 8 {
        return Err(truncated(8));
    }
    file.read_exact_at(&mut size, 0).map_err(ModelError::read(path))?;
    let header_bytes = u64::from_le_bytes(size);
    if header_bytes > MAX_HEADER {
        return Err(ModelError::malformed(path, "is no safetensors file: its header's length makes no sense"));
    }
    if length < 8 + header_bytes {
        return Err(truncated(8 + header_bytes));
    }
    let mut buffer = vec![0; header_bytes as usize];
    file.read_exact_at(&mut buffer, 8).map_err(ModelError::read(path))?;
    let metadata: Metadata =
        serde_json::from_slice(&buffer).map_err(|e| ModelError::malformed(path, format!("bad header: {e}")))?;
    let needed = 8 + header_bytes + metadata.data_len() as u64;
    if length < needed {
        return Err(truncated(needed));
    }
    Ok((8 + header_bytes, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nano(which: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano").join(which)
    }

    #[test]
    fn a_truncated_shard_is_named_with_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let whole = std::fs::read(nano("student").join("model.safetensors")).unwrap();
        for keep in [0, 5, 100, whole.len() - 1] {
            std::fs::write(dir.path().join("model.safetensors"), &whole[..keep]).unwrap();
            let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
            assert!(error.contains("model.safetensors") && error.contains("truncated"), "{error}");
        }
    }

    #[test]
    fn a_missing_shard_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["model.safetensors.index.json", "model-00001-of-00002.safetensors"] {
            std::fs::copy(nano("teacher").join(file), dir.path().join(file)).unwrap();
        }
        let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("model-00002-of-00002.safetensors: this shard is missing"), "{error}");
    }

    #[test]
    fn garbage_is_refused_without_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        for bytes in [vec![0xff; 64], b"\x10\0\0\0\0\0\0\0{\"a\":{\"dtype\":1}".to_vec()] {
            std::fs::write(&path, bytes).unwrap();
            assert!(Checkpoint::open(dir.path()).is_err());
        }
    }

    #[test]
    fn a_shape_that_differs_from_the_configuration_is_refused() {
        let checkpoint = Checkpoint::open(&nano("student")).unwrap();
        let error = checkpoint.float("model.norm.weight", &[64], DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("[128]") && error.contains("[64]"), "{error}");
    }
}

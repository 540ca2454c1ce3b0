//! The safetensors files of a Hugging Face folder: which they are, and their headers.

use crate::{ModelError, Result};
use safetensors::tensor::Metadata;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The file of a model that is in one.
pub const SINGLE: &str = "model.safetensors";
/// The file that names the shards of one that is not.
pub const INDEX: &str = "model.safetensors.index.json";

/// The largest header accepted, as in the format's own reader.
const MAX_HEADER: u64 = 100_000_000;

/// The most shards of a model: each stays open.
const MAX_SHARDS: usize = 1000;

/// The weight files of a model folder, in a fixed order: `model.safetensors` before an index that
/// stands beside it, as in transformers (a fine-tune saved into its base's folder leaves the base's
/// index there).
///
/// # Errors
/// No weights in the folder, or an index that does not parse.
pub fn shard_paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    if single.is_file() {
        return Ok(vec![single]);
    }
    if !index.exists() {
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
    if names.len() > MAX_SHARDS {
        let reason = format!(
            "`weight_map` names {} files: at most {MAX_SHARDS} are expected. Fetch it again",
            names.len()
        );
        return Err(ModelError::malformed(&index, reason));
    }
    Ok(names.into_iter().map(|n| folder.join(n)).collect())
}

/// Opens a shard. What is not a file (a pipe, say) would be waited for without an end.
pub(super) fn open(path: &Path) -> Result<File> {
    let missing = "this shard is missing: fetch the model again, or copy the file here";
    let found = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => ModelError::malformed(path, missing),
        _ => ModelError::read(path)(e),
    })?;
    if !found.is_file() {
        return Err(ModelError::malformed(path, "is not a file: fetch the model again"));
    }
    File::open(path).map_err(ModelError::read(path))
}

/// Where a file's data begin, and what they are.
pub(super) fn header(path: &Path, file: &File) -> Result<(u64, Metadata)> {
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
        return Err(ModelError::malformed(
            path,
            "is not a safetensors file: its header's length makes no sense",
        ));
    }
    if length < 8 + header_bytes {
        return Err(truncated(8 + header_bytes));
    }
    let mut buffer = vec![0; header_bytes as usize];
    file.read_exact_at(&mut buffer, 8).map_err(ModelError::read(path))?;
    let metadata: Metadata = serde_json::from_slice(&buffer)
        .map_err(|e| ModelError::malformed(path, format!("bad header: {e}")))?;
    let data_at = 8 + header_bytes;
    let needed = data_at.saturating_add(metadata.data_len() as u64);
    if length < needed {
        return Err(truncated(needed));
    }
    Ok((data_at, metadata))
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::Checkpoint;
    use std::path::{Path, PathBuf};

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
        assert!(
            error.contains("model-00002-of-00002.safetensors: this shard is missing"),
            "{error}"
        );
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
    fn numbers_of_a_header_are_held_against_the_files_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let part = (1u64 << 61) - 1;
        let tensor = |at: u64| {
            let (start, end) = (at * part, (at + 1) * part);
            format!(
                "\"t{at}\":{{\"dtype\":\"U8\",\"shape\":[{part}],\"data_offsets\":[{start},{end}]}}"
            )
        };
        // All of them together end just below 2^64.
        let all: Vec<String> = (0..8).map(tensor).collect();
        let product =
            "\"t\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}";
        for (header, word) in [(all.join(","), "truncated"), (product.to_owned(), "bad header")] {
            let header = format!("{{{header}}}");
            let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
            std::fs::write(&path, bytes).unwrap();
            let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
            assert!(error.contains(word), "{error}");
        }
        std::fs::write(&path, [&(1u64 << 60).to_le_bytes()[..], b"{}"].concat()).unwrap();
        let error = Checkpoint::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("length makes no sense"), "{error}");
    }
}

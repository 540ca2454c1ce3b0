//! Weights on disk: the safetensors shards of a Hugging Face folder, read piece by piece with positioned reads.
//!
//! No memory map: mapped pages count as memory, and a file that shrinks under one ends the process.

use crate::layers::weight::{DeviceBlocks, Weight};
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use uspx_kernel::{BlockMatrix, Matrix};

/// The tensors of a model folder, by name; or tensors that another reader holds in memory.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where the files are; none where the tensors are in memory.
    folder: Option<PathBuf>,
    shards: Vec<Shard>,
    place: HashMap<String, Place>,
    ready: HashMap<String, Tensor>,
    /// Matrices in memory in a GGUF file's blocks.
    blocks: HashMap<String, BlockMatrix>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Clone)]
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    offset: u64,
    bytes: usize,
}

/// The file of a model that is in one.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The file that names the shards of one that is not.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The largest header accepted, as in the format's own reader.
const MAX_HEADER: u64 = 100_000_000;

impl Checkpoint {
    /// Opens `model.safetensors` of `folder`, or the shards of `model.safetensors.index.json`.
    ///
    /// # Errors
    /// A missing or truncated shard, or a header that does not parse, named with its path.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut this = Self { folder: Some(folder.to_owned()), ..Self::in_memory(HashMap::new()) };
        for path in shard_paths(folder)? {
            this.add(path)?;
        }
        Ok(this)
    }

    /// A checkpoint whose tensors are in memory already.
    pub fn in_memory(tensors: HashMap<String, Tensor>) -> Self {
        Self { folder: None, shards: Vec::new(), place: HashMap::new(), ready: tensors, blocks: HashMap::new() }
    }

    /// The same, some matrices being quantised in blocks. They are expanded only where floats are asked for.
    ///
    /// # Errors
    /// A scale that is not a finite number.
    pub fn with_blocks(tensors: HashMap<String, Tensor>, blocks: HashMap<String, BlockMatrix>) -> Result<Self> {
        match blocks.iter().find(|(_, matrix)| matrix.has_nan()) {
            Some((name, _)) => Err(not_finite(name)),
            None => Ok(Self { blocks, ..Self::in_memory(tensors) }),
        }
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
        self.place.contains_key(name) || self.ready.contains_key(name) || self.blocks.contains_key(name)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let all = self.place.keys().chain(self.ready.keys()).chain(self.blocks.keys());
        let names: BTreeSet<&str> = all.map(String::as_str).collect();
        names.into_iter().collect()
    }

    /// An error with the folder that it is about, where the tensors are in one.
    pub(crate) fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match &self.folder {
            Some(folder) => error.located(folder),
            None => error,
        })
    }

    /// The type that a tensor is stored in, as it is called in messages.
    pub fn type_name(&self, name: &str) -> Option<String> {
        let stored = self.place.get(name).map(|place| dtype_name(place.dtype));
        stored.or_else(|| self.ready.get(name).map(|tensor| tensor.dtype().as_str().to_owned()))
    }

    /// Whether two float tensors of shape `shape` hold the same values.
    ///
    /// # Errors
    /// As [`Self::float`].
    pub fn same(&self, name: &str, other: &str, shape: &[usize; 2]) -> Result<bool> {
        /// Rows compared together, so that no whole vocabulary is in memory.
        const ROWS: usize = 4096;
        let [rows, _] = *shape;
        for start in (0..rows).step_by(ROWS) {
            let part = |name: &str| -> Result<Vec<f32>> {
                let rows = start..(start + ROWS).min(rows);
                Ok(self.float_part(name, shape, rows, DType::F32, &Device::Cpu)?.flatten_all()?.to_vec1()?)
            };
            if part(name)? != part(other)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a float tensor holds nothing but zeros; another one does not.
    pub fn is_zero(&self, name: &str) -> bool {
        let shape = self.place.get(name).map(|p| p.shape.clone());
        let Some(shape) = shape.or_else(|| self.ready.get(name).map(|t| t.dims().to_vec())) else { return false };
        let values = self.float(name, &shape, DType::F32, &Device::Cpu);
        let values = values.and_then(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?));
        values.is_ok_and(|values| values.iter().all(|v| *v == 0.0))
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
        self.bytes_of(name, place, 0..place.bytes)
    }

    fn bytes_of(&self, name: &str, place: &Place, range: Range<usize>) -> Result<Vec<u8>> {
        let missing = || ModelError::tensor(name, "names a shard that is not open");
        let shard = self.shards.get(place.shard).ok_or_else(missing)?;
        let mut bytes = vec![0; range.len()];
        shard.file.read_exact_at(&mut bytes, place.offset + range.start as u64).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let reason = format!("became shorter while `{name}` was read: do not change a model that is in use");
                ModelError::malformed(&shard.path, reason)
            }
            _ => ModelError::read(&shard.path)(e),
        })?;
        Ok(bytes)
    }

    /// The bytes of entries `range` of a tensor's first dimension; the whole tensor must have shape `shape`.
    fn part(&self, name: &str, shape: &[usize], range: Range<usize>) -> Result<(Dtype, Vec<u8>)> {
        let place = self.find(name)?;
        check_shape(name, &place.shape, shape)?;
        let entries = shape.first().copied().unwrap_or(0);
        if range.end > entries || range.start > range.end || entries == 0 {
            let Range { start, end } = range;
            return Err(ModelError::tensor(name, format!("has {entries} entries, {start} to {end} were asked for")));
        }
        let entry = place.bytes / entries;
        Ok((place.dtype, self.bytes_of(name, place, range.start * entry..range.end * entry)?))
    }

    /// Tells the operating system that the tensors whose names begin with `prefix` will be read soon.
    pub fn will_need(&self, prefix: &str) {
        #[cfg(target_os = "linux")]
        for (_, place) in self.place.iter().filter(|(name, _)| name.starts_with(prefix)) {
            let length = std::num::NonZeroU64::new(place.bytes as u64);
            if let Some(shard) = self.shards.get(place.shard) {
                // Advice: where it is not taken, the read waits for the disk.
                let _ = rustix::fs::fadvise(&shard.file, place.offset, length, rustix::fs::Advice::WillNeed);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = prefix;
    }

    /// Bytes of all tensors as they are stored.
    pub fn stored_bytes(&self) -> u64 {
        let ready = |t: &Tensor| (t.elem_count() * t.dtype().size_in_bytes()) as u64;
        self.place.values().map(|p| p.bytes as u64).sum::<u64>()
            + self.ready.values().map(ready).sum::<u64>()
            + self.blocks.values().map(|b| b.bytes() as u64).sum::<u64>()
    }

    /// Reads a float tensor as `dtype`; its shape must be `shape`.
    ///
    /// # Errors
    /// Missing, of another shape, of a type that is no float, or with a value that is not a finite number.
    pub fn float(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        self.float_part(name, shape, 0..shape.first().copied().unwrap_or(0), dtype, device)
    }

    /// Entries `range` of a float tensor's first dimension.
    ///
    /// # Errors
    /// As [`Self::float`].
    pub fn float_part(
        &self,
        name: &str,
        shape: &[usize],
        range: Range<usize>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        if let Some(tensor) = self.ready.get(name) {
            check_shape(name, tensor.dims(), shape)?;
            return Ok(tensor.narrow(0, range.start, range.len())?.contiguous()?.to_device(device)?.to_dtype(dtype)?);
        }
        if let Some(matrix) = self.blocks.get(name) {
            let part = block_rows(name, matrix, shape, range)?;
            let values = Tensor::from_vec(part.expand(), (part.rows(), part.columns()), device)?;
            return Ok(values.to_dtype(dtype)?);
        }
        let (stored, bytes) = self.part(name, shape, range.clone())?;
        let stored = match stored {
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            Dtype::F32 => DType::F32,
            other => {
                let reason = format!("is stored as {}, a float was expected", dtype_name(other));
                return Err(ModelError::tensor(name, reason));
            }
        };
        if !all_finite(&bytes, stored) {
            return Err(not_finite(name));
        }
        let dims: Vec<usize> = std::iter::once(range.len()).chain(shape.iter().skip(1).copied()).collect();
        let tensor = Tensor::from_raw_buffer(&bytes, stored, &dims, device)?;
        Ok(tensor.to_dtype(dtype)?)
    }

    /// Rows `range` of a weight, `[out, in]`: as stored where this CPU has a kernel for it and `packed` asks for it, else
    /// as floats.
    ///
    /// # Errors
    /// As [`Self::float`].
    pub fn weight(
        &self,
        name: &str,
        shape: &[usize; 2],
        range: Range<usize>,
        packed: bool,
        (dtype, device): (DType, &Device),
    ) -> Result<Weight> {
        if let Some(matrix) = self.blocks.get(name).filter(|_| packed) {
            return Ok(Weight::Quantised(block_rows(name, matrix, shape, range)?));
        }
        let is_bf16 = self.place.get(name).is_some_and(|p| p.dtype == Dtype::BF16);
        if !(packed && is_bf16) {
            return Ok(Weight::Float(self.float_part(name, shape, range, dtype, device)?));
        }
        let [_, columns] = *shape;
        let (_, bytes) = self.part(name, shape, range.clone())?;
        Ok(Weight::Packed(finite(name, Matrix::bf16(range.len(), columns, bytes))?))
    }

    /// One expert's weight of a tensor `[experts, ..]` that holds all of them: see [`Stacked`].
    ///
    /// # Errors
    /// Missing, of another shape or type, or with a value that is not a finite number.
    pub fn expert(
        &self,
        stacked: &Stacked<'_>,
        index: usize,
        packed: bool,
        (dtype, device): (DType, &Device),
    ) -> Result<Weight> {
        let Stacked { name, experts, out, into, .. } = *stacked;
        if stacked.form == Form::Mxfp4 {
            let (blocks, scales) = self.mxfp4(stacked, index)?;
            let matrix = finite(name, Matrix::mxfp4(out, into, blocks, scales))?;
            if packed {
                return Ok(Weight::Packed(matrix));
            }
            return Ok(Weight::Float(Tensor::from_vec(matrix.expand(), (out, into), device)?.to_dtype(dtype)?));
        }
        let shape = if stacked.form == Form::InOut { [experts, into, out] } else { [experts, out, into] };
        let is_bf16 = self.place.get(name).is_some_and(|p| p.dtype == Dtype::BF16);
        if packed && is_bf16 {
            let (_, bytes) = self.part(name, &shape, index..index + 1)?;
            let bytes = if stacked.form == Form::InOut { transposed(&bytes, into, out) } else { bytes };
            return Ok(Weight::Packed(finite(name, Matrix::bf16(out, into, bytes))?));
        }
        let float = self.float_part(name, &shape, index..index + 1, dtype, device)?.squeeze(0)?;
        Ok(Weight::Float(if stacked.form == Form::InOut { float.t()?.contiguous()? } else { float }))
    }

    /// One expert's MXFP4 weight on a GPU, as it is stored.
    ///
    /// # Errors
    /// As [`Self::expert`].
    pub fn device_expert(&self, stacked: &Stacked<'_>, index: usize, device: &Device) -> Result<Weight> {
        let (blocks, scales) = self.mxfp4(stacked, index)?;
        // The scale's one code that is no number; every code of a value is finite.
        if scales.contains(&0xff) {
            return Err(not_finite(stacked.name));
        }
        Ok(Weight::OnDevice(DeviceBlocks::new(blocks, scales, (stacked.out, stacked.into), device)?))
    }

    /// Blocks and scales of one expert.
    fn mxfp4(&self, stacked: &Stacked<'_>, index: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let Stacked { name, experts, out, into, .. } = *stacked;
        let of = |suffix: &str, shape: &[usize]| self.raw(&format!("{name}_{suffix}"), shape, index);
        Ok((of("blocks", &[experts, out, into / 32, 16])?, of("scales", &[experts, out, into / 32])?))
    }

    fn raw(&self, name: &str, shape: &[usize], index: usize) -> Result<Vec<u8>> {
        let (dtype, bytes) = self.part(name, shape, index..index + 1)?;
        if dtype != Dtype::U8 {
            let reason = format!("is stored as {}, bytes were expected", dtype_name(dtype));
            return Err(ModelError::tensor(name, reason));
        }
        Ok(bytes)
    }
}

/// A tensor that holds the weights of all experts of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Stacked<'a> {
    /// Its name; MXFP4 appends `_blocks` and `_scales`.
    pub name: &'a str,
    /// Experts.
    pub experts: usize,
    /// Outputs of each.
    pub out: usize,
    /// Inputs of each.
    pub into: usize,
    /// How it is laid out.
    pub form: Form,
}

/// Layouts of stacked experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// MXFP4 blocks and scales of `[experts, out, in]`.
    Mxfp4,
    /// Floats `[experts, in, out]` (gpt-oss in bf16).
    InOut,
    /// Floats `[experts, out, in]`.
    OutIn,
}

/// Some rows of a matrix in blocks, which must have shape `shape`.
fn block_rows(name: &str, matrix: &BlockMatrix, shape: &[usize], range: Range<usize>) -> Result<BlockMatrix> {
    check_shape(name, &[matrix.rows(), matrix.columns()], shape)?;
    matrix.part(range).map_err(|e| ModelError::tensor(name, e.to_string()))
}

fn not_finite(name: &str) -> ModelError {
    ModelError::tensor(name, "holds a value that is not a finite number: the file is damaged, fetch it again")
}

fn finite(name: &str, matrix: std::result::Result<Matrix, uspx_kernel::KernelError>) -> Result<Matrix> {
    let matrix = matrix.map_err(|e| ModelError::tensor(name, e.to_string()))?;
    if matrix.has_nan() { Err(not_finite(name)) } else { Ok(matrix) }
}

/// Whether all little-endian floats have an exponent below the one of infinities and NaN.
fn all_finite(bytes: &[u8], dtype: DType) -> bool {
    let half = |mask: u16| bytes.as_chunks::<2>().0.iter().all(|b| u16::from_le_bytes(*b) & mask != mask);
    match dtype {
        DType::BF16 => half(0x7f80),
        DType::F16 => half(0x7c00),
        _ => bytes.as_chunks::<4>().0.iter().all(|b| u32::from_le_bytes(*b) & 0x7f80_0000 != 0x7f80_0000),
    }
}

/// 16-bit values `[rows, columns]` as `[columns, rows]`.
fn transposed(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let (values, _) = bytes.as_chunks::<2>();
    let mut out = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            out.extend(values.get(row * columns + column).copied().unwrap_or_default());
        }
    }
    out
}

fn check_shape(name: &str, got: &[usize], want: &[usize]) -> Result<()> {
    if got == want {
        return Ok(());
    }
    Err(ModelError::tensor(name, format!("has shape {got:?}, config.json asks for {want:?}")))
}

/// A type as it is called in messages: bf16, f8_e4m3.
pub fn dtype_name(dtype: Dtype) -> String {
    format!("{dtype:?}").to_lowercase()
}

/// The weight files of a model folder, in a fixed order: `model.safetensors` before an index that stands beside it, as in
/// transformers (a fine-tune saved into its base's folder leaves the base's index there).
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

//! Weights on disk: the safetensors shards of a Hugging Face folder, read piece by piece with
//! positioned reads.
//!
//! No memory map: mapped pages count as memory, and a file that shrinks under one ends the process.

mod check;
mod files;
mod floats;
mod pieces;
mod weights;

pub use check::dtype_name;
pub use files::{INDEX, SINGLE, shard_paths};
pub use pieces::StoredTensor;
pub use weights::{Form, Stacked};

use crate::{ModelError, Result};
use candle_core::Tensor;
use check::{check_shape, not_finite};
use files::header;
use safetensors::tensor::Dtype;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use uspx_kernel::BlockMatrix;

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
        Self {
            folder: None,
            shards: Vec::new(),
            place: HashMap::new(),
            ready: tensors,
            blocks: HashMap::new(),
        }
    }

    /// The same, some matrices being quantised in blocks. They are expanded only where floats are
    /// asked for.
    ///
    /// # Errors
    /// A scale that is not a finite number.
    pub fn with_blocks(
        tensors: HashMap<String, Tensor>,
        blocks: HashMap<String, BlockMatrix>,
    ) -> Result<Self> {
        Self::in_memory(HashMap::new()).read_apart(|_| false, tensors, blocks)
    }

    /// The same without the tensors whose names are `packed`, and with what another reader made of them.
    ///
    /// # Errors
    /// A scale that is not a finite number.
    pub fn read_apart(
        mut self,
        packed: impl Fn(&str) -> bool,
        tensors: HashMap<String, Tensor>,
        blocks: HashMap<String, BlockMatrix>,
    ) -> Result<Self> {
        if let Some((name, _)) = blocks.iter().find(|(_, matrix)| matrix.has_nan()) {
            return Err(not_finite(name));
        }
        self.place.retain(|name, _| !packed(name));
        self.ready.extend(tensors);
        self.blocks.extend(blocks);
        Ok(self)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = files::open(&path)?;
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
        self.place.contains_key(name)
            || self.ready.contains_key(name)
            || self.blocks.contains_key(name)
    }

    /// Refuses a tensor of another shape than `shape`; one that is not there passes.
    pub(crate) fn check_shape(&self, name: &str, shape: &[usize]) -> Result<()> {
        match (self.place.get(name), self.ready.get(name), self.blocks.get(name)) {
            (Some(place), ..) => check_shape(name, &place.shape, shape),
            (_, Some(tensor), _) => check_shape(name, tensor.dims(), shape),
            (.., Some(matrix)) => check_shape(name, &[matrix.rows(), matrix.columns()], shape),
            _ => Ok(()),
        }
    }

    /// The shape of a tensor of the shards.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.place.get(name).map(|place| place.shape.clone())
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
        let mut bytes = vec![0; range.len()];
        self.fill(name, place, range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `into` with the bytes from the tensor's byte `at` on.
    fn fill(&self, name: &str, place: &Place, at: usize, into: &mut [u8]) -> Result<()> {
        let missing = || ModelError::tensor(name, "names a shard that is not open");
        let shard = self.shards.get(place.shard).ok_or_else(missing)?;
        shard.file.read_exact_at(into, place.offset + at as u64).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let reason = format!(
                    "became shorter while `{name}` was read: do not change a model that is in use"
                );
                ModelError::malformed(&shard.path, reason)
            }
            _ => ModelError::read(&shard.path)(e),
        })
    }

    /// The bytes of entries `range` of a tensor's first dimension; the whole tensor must have shape
    /// `shape`.
    fn part(&self, name: &str, shape: &[usize], range: Range<usize>) -> Result<(Dtype, Vec<u8>)> {
        let place = self.find(name)?;
        check_shape(name, &place.shape, shape)?;
        let entries = shape.first().copied().unwrap_or(0);
        if range.end > entries || range.start > range.end || entries == 0 {
            let Range { start, end } = range;
            return Err(ModelError::tensor(
                name,
                format!("has {entries} entries, {start} to {end} were asked for"),
            ));
        }
        let entry = place.bytes / entries;
        Ok((place.dtype, self.bytes_of(name, place, range.start * entry..range.end * entry)?))
    }

    /// Tells the operating system that the tensors whose names begin with `prefix` will be read
    /// soon.
    pub fn will_need(&self, prefix: &str) {
        #[cfg(target_os = "linux")]
        for (_, place) in self.place.iter().filter(|(name, _)| name.starts_with(prefix)) {
            let length = std::num::NonZeroU64::new(place.bytes as u64);
            if let Some(shard) = self.shards.get(place.shard) {
                // Advice: where it is not taken, the read waits for the disk.
                let _ = rustix::fs::fadvise(
                    &shard.file,
                    place.offset,
                    length,
                    rustix::fs::Advice::WillNeed,
                );
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
}

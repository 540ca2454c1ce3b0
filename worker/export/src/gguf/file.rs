//! The bytes of a GGUF file, read without trust: every length is held against the file's and
//! against what a header may have before anything is allocated.
//!
//! (candle reads GGUF too, and divides by an alignment of 0.) Tensors are read one by one with
//! positioned reads.

use crate::gguf::block_types;
use crate::gguf::header::MAGIC;
use crate::{ExportError, Result};
use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor, ggml_file};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Arrays of arrays deeper than this are refused; `llama` files have none.
const MAX_DEPTH: u32 = 4;
const MAX_DIMS: u32 = 4;
/// The largest header read; a vocabulary of 256,000 tokens with its merges takes some 12 MB. A file
/// may be longer than its bytes on disk, so that its length bounds nothing.
const MAX_HEADER: u64 = 1 << 28;
/// The most values of all arrays together: one takes more memory than bytes in the file.
const MAX_VALUES: u64 = 1 << 23;
/// The most pairs, and the most tensors.
const MAX_ENTRIES: u64 = 1 << 16;

/// An open GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    file: File,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorPlace>,
}

/// Where a tensor lies, and what it is.
#[derive(Debug, Clone)]
pub struct TensorPlace {
    /// Block type.
    pub dtype: GgmlDType,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub bytes: usize,
    offset: u64,
}

impl GgufFile {
    /// Reads the header of a file of version 2 or 3.
    ///
    /// # Errors
    /// [`ExportError::Format`] for a file that is truncated, foreign or contradicts itself.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(ExportError::reading(path))?;
        let length = file.metadata().map_err(ExportError::reading(path))?.len();
        let input = BufReader::new(file.try_clone().map_err(ExportError::reading(path))?);
        let left = length.min(MAX_HEADER);
        let mut cursor = Cursor { path, input, length, left, read: 0, values: MAX_VALUES };
        let (metadata, tensors) = cursor.header()?;
        Ok(Self { path: path.to_owned(), file, metadata, tensors })
    }

    /// Key-value pairs.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// Tensors by GGUF name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorPlace> {
        &self.tensors
    }

    /// Reads a tensor as stored.
    ///
    /// # Errors
    /// [`ExportError::MissingTensor`], [`ExportError::File`], or a block type that candle cannot
    /// hold.
    pub fn tensor(&self, name: &str) -> Result<QTensor> {
        let (place, bytes) = (self.place(name)?, self.bytes(name)?);
        let read =
            ggml_file::qtensor_from_ggml(place.dtype, &bytes, place.shape.clone(), &Device::Cpu);
        read.map_err(|e| {
            let cause = ExportError::from(e);
            ExportError::format(&self.path, format!("tensor `{name}`: {cause}"))
        })
    }

    /// Reads a tensor's bytes.
    ///
    /// # Errors
    /// [`ExportError::MissingTensor`], [`ExportError::File`].
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let place = self.place(name)?;
        let mut bytes = vec![0; place.bytes];
        self.file
            .read_exact_at(&mut bytes, place.offset)
            .map_err(ExportError::reading(&self.path))?;
        Ok(bytes)
    }

    /// Reads some rows of a tensor as f32.
    ///
    /// # Errors
    /// As [`Self::tensor`], or rows that it has not.
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        let place = self.place(name)?;
        let (all, rest) = place.shape.split_first().unwrap_or((&0, &[]));
        if rows.start > rows.end || rows.end > *all {
            let (name, got) = (name.to_owned(), place.shape.clone());
            return Err(ExportError::Shape { name, got, want: format!("{} rows", rows.end) });
        }
        let row = place.bytes / (*all).max(1);
        let mut bytes = vec![0; rows.len() * row];
        let read = self.file.read_exact_at(&mut bytes, place.offset + (rows.start * row) as u64);
        read.map_err(ExportError::reading(&self.path))?;
        let shape = [&[rows.len()], rest].concat();
        let blocks = ggml_file::qtensor_from_ggml(place.dtype, &bytes, shape, &Device::Cpu)?;
        Ok(blocks.dequantize(&Device::Cpu)?)
    }

    fn place(&self, name: &str) -> Result<&TensorPlace> {
        self.tensors.get(name).ok_or_else(|| ExportError::MissingTensor(name.to_owned()))
    }

    /// Reads a tensor as f32.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn floats(&self, name: &str) -> Result<Tensor> {
        Ok(self.tensor(name)?.dequantize(&Device::Cpu)?)
    }
}

/// Reads forward and knows how many bytes are left.
struct Cursor<'a> {
    path: &'a Path,
    input: BufReader<File>,
    length: u64,
    /// Bytes that may still be read.
    left: u64,
    read: u64,
    /// Values that arrays may still have.
    values: u64,
}

type Header = (BTreeMap<String, Value>, BTreeMap<String, TensorPlace>);

impl Cursor<'_> {
    fn wrong<T>(&self, reason: impl ToString) -> Result<T> {
        Err(ExportError::format(self.path, reason))
    }

    fn bytes(&mut self, count: u64) -> Result<Vec<u8>> {
        if count > self.left {
            return self.beyond(format!("{count} bytes are announced"));
        }
        let mut bytes = vec![0; count as usize];
        self.input.read_exact(&mut bytes).map_err(ExportError::reading(self.path))?;
        self.left -= count;
        self.read += count;
        Ok(bytes)
    }

    /// More is announced than may follow.
    fn beyond<T>(&self, what: String) -> Result<T> {
        let left = self.left;
        if self.length > MAX_HEADER {
            return self.wrong(format!(
                "{what} where {left} are left of the {MAX_HEADER} bytes that a header may have"
            ));
        }
        self.wrong(format!("truncated: {what} where {left} are left"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes(N as u64)?;
        bytes.try_into().or_else(|_| self.wrong("truncated"))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u64()?;
        let bytes = self.bytes(length)?;
        String::from_utf8(bytes).or_else(|_| self.wrong("a string is not UTF-8"))
    }

    fn header(&mut self) -> Result<Header> {
        if self.u32()? != MAGIC {
            return self.wrong("this is not a GGUF file");
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return self.wrong(format!("GGUF version {version} is not known here: 2 and 3 are"));
        }
        let (tensors, pairs) = (self.u64()?, self.u64()?);
        if tensors > MAX_ENTRIES || pairs > MAX_ENTRIES {
            return self.wrong(format!(
                "{tensors} tensors and {pairs} pairs are announced: at most {MAX_ENTRIES} of each are read"
            ));
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..pairs {
            let (key, kind) = (self.string()?, self.u32()?);
            metadata.insert(key, self.value(kind, 0)?);
        }
        let mut places = BTreeMap::new();
        for _ in 0..tensors {
            let (name, place) = self.tensor()?;
            places.insert(name, place);
        }
        let start = self.data_start(&metadata)?;
        let mut whole = 0u64;
        for (name, place) in &mut places {
            place.offset = place.offset.saturating_add(start);
            if place.offset.saturating_add(place.bytes as u64) > self.length {
                return self.wrong(format!("truncated: tensor `{name}` ends beyond the file"));
            }
            whole = whole.saturating_add(place.bytes as u64);
        }
        if whole > self.length {
            return self.wrong("its tensors overlap: they are larger together than the file");
        }
        Ok((metadata, places))
    }

    fn data_start(&self, metadata: &BTreeMap<String, Value>) -> Result<u64> {
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::U32(a)) if a.is_power_of_two() => u64::from(*a),
            Some(_) => return self.wrong("general.alignment is not a power of two"),
        };
        Ok(self.read.next_multiple_of(alignment))
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.array()?)),
            1 => Value::I8(i8::from_le_bytes(self.array()?)),
            2 => Value::U16(u16::from_le_bytes(self.array()?)),
            3 => Value::I16(i16::from_le_bytes(self.array()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array()?)),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => Value::Bool(u8::from_le_bytes(self.array()?) != 0),
            8 => Value::String(self.string()?),
            9 => self.list(depth)?,
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            other => return self.wrong(format!("value type {other} is not known")),
        })
    }

    fn list(&mut self, depth: u32) -> Result<Value> {
        if depth >= MAX_DEPTH {
            return self.wrong("arrays are nested too deeply");
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        // Every element takes a byte at least, so a count beyond the file is a lie.
        if count > self.left {
            return self.beyond(format!("an array of {count} elements is announced"));
        }
        let Some(values) = self.values.checked_sub(count) else {
            return self.wrong(format!("its arrays have more than {MAX_VALUES} values together"));
        };
        self.values = values;
        Ok(Value::Array((0..count).map(|_| self.value(kind, depth + 1)).collect::<Result<_>>()?))
    }

    fn tensor(&mut self) -> Result<(String, TensorPlace)> {
        let name = self.string()?;
        let dims = self.u32()?;
        if dims == 0 || dims > MAX_DIMS {
            return self.wrong(format!("tensor `{name}` has {dims} dimensions"));
        }
        let mut shape = (0..dims).map(|_| Ok(self.u64()? as usize)).collect::<Result<Vec<_>>>()?;
        let row = shape.first().copied().unwrap_or(0);
        shape.reverse();
        let kind = self.u32()?;
        let Some(dtype) = block_types::of(kind) else {
            return self
                .wrong(format!("tensor `{name}` has block type {kind}, which is not known here"));
        };
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n > 0);
        let whole = elements.filter(|_| row.is_multiple_of(dtype.block_size()));
        let bytes = whole.and_then(|n| (n / dtype.block_size()).checked_mul(dtype.type_size()));
        let Some(bytes) = bytes else {
            return self
                .wrong(format!("tensor `{name}` of {shape:?} cannot be stored as {dtype:?}"));
        };
        Ok((name, TensorPlace { dtype, shape, bytes, offset: self.u64()? }))
    }
}

#[cfg(test)]
mod tests;

//! A safetensors file, written from front to back with little memory.

use super::tensors::{Noise, Tensor};
use crate::error::{BenchError, Result};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file whose header is written, and whose tensors are to follow in that order.
pub struct Shard {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Shard {
    /// Creates the file with its header.
    pub fn create(path: &Path, tensors: &[Tensor]) -> Result<Self> {
        let file = File::create(path).map_err(BenchError::file(path))?;
        let mut this =
            Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file) };
        let header = header(tensors);
        this.put(&(header.len() as u64).to_le_bytes())?;
        this.put(header.as_bytes())?;
        Ok(this)
    }

    /// Writes the next tensor.
    pub fn fill(&mut self, tensor: &Tensor, noise: &Noise) -> Result<()> {
        let (period, mut at) = noise.of(tensor);
        let mut left = tensor.bytes() as usize;
        while left > 0 {
            let piece = period.get(at..).unwrap_or_default();
            let piece = piece.get(..left).unwrap_or(piece);
            self.put(piece)?;
            (left, at) = (left - piece.len(), 0);
        }
        Ok(())
    }

    /// Brings everything to the disk.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(BenchError::file(&self.path))?;
        self.file.get_ref().sync_all().map_err(BenchError::file(&self.path))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(BenchError::file(&self.path))
    }
}

/// The header: types, shapes and offsets, padded with blanks to a multiple of 8.
fn header(tensors: &[Tensor]) -> String {
    let (mut entries, mut at) = (Map::new(), 0);
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    for tensor in tensors {
        let end = at + tensor.bytes();
        let entry: Value =
            json!({"dtype": tensor.dtype(), "shape": tensor.shape, "data_offsets": [at, end]});
        entries.insert(tensor.name.clone(), entry);
        at = end;
    }
    let text = Value::Object(entries).to_string();
    let width = text.len().next_multiple_of(8);
    format!("{text:<width$}")
}

//! Writes a safetensors file from front to back, in pieces: no tensor is ever whole in memory.

use super::tensors::{Run, Written};
use crate::hf::header;
use crate::{ExportError, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use uspx_domain::Digest;
use uspx_model::Progress;
use uspx_model::checkpoint::Checkpoint;

/// Bytes copied at once.
const PIECE: usize = 4 << 20;

/// Copies tensors out of a checkpoint.
pub struct Copier<'a> {
    source: &'a Checkpoint,
    progress: &'a dyn Progress,
    /// Bytes of all files together.
    total: u64,
    done: u64,
    piece: Vec<u8>,
}

impl<'a> Copier<'a> {
    /// Nothing is copied yet, of `total` bytes.
    pub fn new(source: &'a Checkpoint, progress: &'a dyn Progress, total: u64) -> Self {
        Self { source, progress, total, done: 0, piece: vec![0; PIECE] }
    }

    /// Writes a file of these tensors; its digest.
    ///
    /// # Errors
    /// The source cannot be read, the file not be written; the work was stopped.
    pub fn write(&mut self, path: &Path, tensors: &[Written]) -> Result<Digest> {
        let file = File::create(path).map_err(ExportError::writing(path))?;
        let mut out = Hashed { path, file: BufWriter::new(file), hasher: blake3::Hasher::new() };
        let coming = |t: &Written| (t.name.clone(), t.dtype, t.shape.clone());
        out.put(&header(path, tensors.iter().map(coming).collect())?)?;
        for tensor in tensors {
            for run in &tensor.runs {
                self.run(&tensor.from, run, &mut out)?;
            }
        }
        out.file.flush().map_err(ExportError::writing(path))?;
        Ok(Digest(*out.hasher.finalize().as_bytes()))
    }

    fn run(&mut self, from: &str, run: &Run, out: &mut Hashed<'_>) -> Result<()> {
        match run {
            Run::These(bytes) => {
                out.put(bytes)?;
                self.copied(bytes.len())?;
            }
            Run::Copy(range) => {
                for at in range.clone().step_by(PIECE) {
                    let bytes = PIECE.min(range.end - at);
                    let piece = self.piece.get_mut(..bytes).unwrap_or_default();
                    self.source.read_at(from, at, piece)?;
                    out.put(piece)?;
                    self.copied(bytes)?;
                }
            }
            Run::Columns { rows, width, kept } => {
                self.columns((from, *rows, *width), kept, out)?;
            }
            Run::Zeros(bytes) => {
                for at in (0..*bytes).step_by(PIECE) {
                    let left = PIECE.min(bytes - at);
                    let piece = self.piece.get_mut(..left).unwrap_or_default();
                    piece.fill(0);
                    out.put(piece)?;
                    self.copied(left)?;
                }
            }
        }
        Ok(())
    }

    /// Whole rows are read, as many as a piece holds and at least one, and what stays of them is put
    /// together.
    fn columns(
        &mut self,
        (from, rows, width): (&str, usize, usize),
        kept: &[Range<usize>],
        out: &mut Hashed<'_>,
    ) -> Result<()> {
        let width = width.max(1);
        let at_once = (PIECE / width).max(1);
        let mut gathered = Vec::new();
        for first in (0..rows).step_by(at_once) {
            let bytes = at_once.min(rows - first) * width;
            self.piece.resize(self.piece.len().max(bytes), 0);
            let piece = self.piece.get_mut(..bytes).unwrap_or_default();
            self.source.read_at(from, first * width, piece)?;
            gathered.clear();
            for row in piece.chunks(width) {
                for range in kept {
                    gathered.extend_from_slice(row.get(range.clone()).unwrap_or_default());
                }
            }
            out.put(&gathered)?;
            self.copied(gathered.len())?;
        }
        Ok(())
    }

    fn copied(&mut self, bytes: usize) -> Result<()> {
        self.done += bytes as u64;
        Ok(self.progress.report(self.done, self.total)?)
    }
}

/// A file, and the digest of what was written into it.
struct Hashed<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Hashed<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(ExportError::writing(self.path))
    }
}

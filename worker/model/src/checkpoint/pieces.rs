//! Tensors as they are stored, file by file and piece by piece: for whoever copies them.

use super::{Checkpoint, Place};
use crate::{ModelError, Result};
use safetensors::tensor::Dtype;
use std::path::Path;

/// A tensor of a shard.
#[derive(Debug, Clone, Copy)]
pub struct StoredTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its bytes, rows first.
    pub bytes: usize,
}

impl<'a> StoredTensor<'a> {
    fn of(name: &'a str, Place { dtype, shape, bytes, .. }: &'a Place) -> Self {
        Self { name, dtype: *dtype, shape, bytes: *bytes }
    }
}

impl Checkpoint {
    /// The files, and the tensors of each in the order of their bytes. A tensor that two files have
    /// stands with the one that it is read from.
    pub fn shards(&self) -> Vec<(&Path, Vec<StoredTensor<'_>>)> {
        let shards = self.shards.iter().enumerate();
        shards.map(|(at, shard)| (shard.path.as_path(), self.tensors_of(at))).collect()
    }

    fn tensors_of(&self, shard: usize) -> Vec<StoredTensor<'_>> {
        let mut places: Vec<(&String, &Place)> =
            self.place.iter().filter(|(_, place)| place.shard == shard).collect();
        places.sort_by(|a, b| (a.1.offset, a.0).cmp(&(b.1.offset, b.0)));
        places.into_iter().map(|(name, place)| StoredTensor::of(name, place)).collect()
    }

    /// Fills `into` with a tensor's bytes, as they are stored, from its byte `at` on.
    ///
    /// # Errors
    /// Missing, shorter, or unreadable.
    pub fn read_at(&self, name: &str, at: usize, into: &mut [u8]) -> Result<()> {
        let place = self.find(name)?;
        if at.checked_add(into.len()).is_none_or(|end| end > place.bytes) {
            return Err(ModelError::tensor(name, format!("has {} bytes", place.bytes)));
        }
        self.fill(name, place, at, into)
    }
}

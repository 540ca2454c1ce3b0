//! Keys and values of the tokens that layers have seen, in memory as far as a limit allows, then in
//! temporary files.

use crate::{ModelError, Result};
use candle_core::Tensor;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The caches of all layers of a decoding batch.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    /// For each layer that does not fit: what of it is in a file.
    files: Vec<Option<Spooled>>,
    /// Bytes that all layers may hold in memory.
    limit: usize,
}

/// One layer's cache. It is of the kind of its first use: by sequence on the CPU, padded elsewhere.
#[derive(Debug, Default)]
pub enum LayerCache {
    /// Nothing seen yet.
    #[default]
    Empty,
    /// Keys and values, each `[kv_heads, B, T, head_dim]`.
    Padded(Tensor, Tensor),
    /// One for every sequence of the batch.
    BySequence(Vec<SequenceCache>),
}

/// Keys and values of one sequence: per KV head `[tokens × head_dim]`, in the order of positions.
#[derive(Debug, Clone, Default)]
pub struct SequenceCache {
    /// Keys, per KV head.
    pub keys: Vec<Vec<f32>>,
    /// Values, per KV head.
    pub values: Vec<Vec<f32>>,
}

impl KvCache {
    /// Empty caches for `layers` layers that hold at most `limit` bytes together between uses.
    pub fn new(layers: usize, limit: usize) -> Self {
        Self {
            layers: (0..layers).map(|_| LayerCache::default()).collect(),
            files: (0..layers).map(|_| None).collect(),
            limit,
        }
    }

    /// A layer's cache, read back if it is in a file.
    pub(crate) fn open(&mut self, layer: usize) -> Result<&mut LayerCache> {
        let missing = || ModelError::Request(format!("no key-value cache for layer {layer}"));
        let cache = self.layers.get_mut(layer).ok_or_else(missing)?;
        if let (Some(Some(spooled)), LayerCache::Empty) = (self.files.get(layer), &*cache) {
            *cache = LayerCache::BySequence(spooled.read()?);
        }
        Ok(cache)
    }

    /// The layer is done for this step: what does not fit goes to its file.
    pub(crate) fn close(&mut self, layer: usize) -> Result<()> {
        let held: usize = self.layers.iter().map(LayerCache::bytes).sum();
        let (Some(cache), Some(file)) = (self.layers.get_mut(layer), self.files.get_mut(layer))
        else {
            return Ok(());
        };
        let LayerCache::BySequence(sequences) = cache else { return Ok(()) };
        if held <= self.limit && file.is_none() {
            return Ok(());
        }
        match file {
            Some(spooled) => spooled.append(sequences)?,
            None => *file = Some(Spooled::new(sequences)?),
        }
        *cache = LayerCache::Empty;
        Ok(())
    }

    /// Layers whose cache is in a file.
    pub fn spooled(&self) -> usize {
        self.files.iter().flatten().count()
    }
}

impl LayerCache {
    fn bytes(&self) -> usize {
        match self {
            Self::BySequence(sequences) => {
                sequences.iter().map(|s| s.parts().map(size_of_val).sum::<usize>()).sum()
            }
            _ => 0,
        }
    }

    /// Appends padded keys and values and gives all of them.
    pub(crate) fn extend_padded(&mut self, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
        let (k, v) = match self {
            Self::Padded(old_k, old_v) => {
                (Tensor::cat(&[&*old_k, &k], 2)?, Tensor::cat(&[&*old_v, &v], 2)?)
            }
            Self::Empty => (k, v),
            Self::BySequence(_) => {
                let reason = "a key-value cache filled sequence by sequence cannot go on padded: keep the same taps";
                return Err(ModelError::Request(reason.into()));
            }
        };
        *self = Self::Padded(k.clone(), v.clone());
        Ok((k, v))
    }

    /// The caches of `sequences` sequences with `kv_heads` heads, filled or new.
    pub(crate) fn by_sequence(
        &mut self,
        sequences: usize,
        kv_heads: usize,
    ) -> Result<&mut [SequenceCache]> {
        if matches!(self, Self::Empty) {
            let empty = SequenceCache {
                keys: vec![Vec::new(); kv_heads],
                values: vec![Vec::new(); kv_heads],
            };
            *self = Self::BySequence(vec![empty; sequences]);
        }
        match self {
            Self::BySequence(all) if all.len() == sequences => Ok(all),
            _ => Err(ModelError::Request(format!(
                "the key-value cache is not one of {sequences} sequences"
            ))),
        }
    }
}

impl SequenceCache {
    /// Every head's keys, then every head's values.
    fn parts(&self) -> impl Iterator<Item = &[f32]> {
        self.keys.iter().chain(&self.values).map(Vec::as_slice)
    }
}

/// A layer's cache in a temporary file: what came step by step lies in pieces one after another.
#[derive(Debug)]
struct Spooled {
    file: File,
    end: u64,
    /// KV heads.
    heads: usize,
    /// Per sequence, per part: its pieces (offset, values).
    places: Vec<Vec<Vec<(u64, usize)>>>,
}

fn spooling(source: std::io::Error) -> ModelError {
    ModelError::Read { path: std::env::temp_dir(), source }
}

impl Spooled {
    fn new(sequences: &[SequenceCache]) -> Result<Self> {
        let heads = sequences.first().map_or(0, |s| s.keys.len());
        let places = vec![vec![Vec::new(); 2 * heads]; sequences.len()];
        let mut this =
            Self { file: tempfile::tempfile().map_err(spooling)?, end: 0, heads, places };
        this.append(sequences)?;
        Ok(this)
    }

    /// Writes what `sequences` hold beyond what is in the file.
    fn append(&mut self, sequences: &[SequenceCache]) -> Result<()> {
        let mut bytes = Vec::new();
        let mut at = self.end;
        for (places, sequence) in self.places.iter_mut().zip(sequences) {
            for (places, part) in places.iter_mut().zip(sequence.parts()) {
                let known: usize = places.iter().map(|(_, count)| count).sum();
                let new = part.get(known..).unwrap_or_default();
                if !new.is_empty() {
                    bytes.extend(new.iter().flat_map(|value| value.to_ne_bytes()));
                    places.push((at, new.len()));
                    at += size_of_val(new) as u64;
                }
            }
        }
        self.file.write_all_at(&bytes, self.end).map_err(spooling)?;
        self.end = at;
        Ok(())
    }

    fn read(&self) -> Result<Vec<SequenceCache>> {
        let mut bytes = vec![0; self.end as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(spooling)?;
        let values = |(offset, count): &(u64, usize)| {
            let start = *offset as usize;
            let piece = bytes.get(start..start + count * size_of::<f32>()).unwrap_or_default();
            piece.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b))
        };
        let part =
            |places: &Vec<(u64, usize)>| places.iter().flat_map(values).collect::<Vec<f32>>();
        let sequence = |places: &Vec<Vec<(u64, usize)>>| {
            let mut parts = places.iter().map(part);
            SequenceCache {
                keys: parts.by_ref().take(self.heads).collect(),
                values: parts.collect(),
            }
        };
        Ok(self.places.iter().map(sequence).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_beyond_its_limit_comes_back_from_its_file_step_after_step() {
        let mut caches = [KvCache::new(2, usize::MAX), KvCache::new(2, 40)];
        for step in 0..5 {
            for cache in &mut caches {
                for layer in 0..2 {
                    let sequences = cache.open(layer).unwrap().by_sequence(3, 2).unwrap();
                    for (s, sequence) in sequences.iter_mut().enumerate() {
                        for (h, (keys, values)) in
                            sequence.keys.iter_mut().zip(&mut sequence.values).enumerate()
                        {
                            let value = (step * 100 + layer * 50 + s * 10 + h) as f32;
                            keys.extend([value; 2]);
                            values.extend([-value; 2]);
                        }
                    }
                    cache.close(layer).unwrap();
                }
            }
        }
        let [held, spooled] = &mut caches;
        assert_eq!((held.spooled(), spooled.spooled()), (0, 2));
        for layer in 0..2 {
            let [a, b] = [&mut *held, &mut *spooled]
                .map(|c| c.open(layer).unwrap().by_sequence(3, 2).unwrap().to_vec());
            for (a, b) in a.iter().zip(&b) {
                assert_eq!((&a.keys, &a.values), (&b.keys, &b.values));
                assert_eq!(a.keys[0].len(), 10);
            }
        }
    }
}

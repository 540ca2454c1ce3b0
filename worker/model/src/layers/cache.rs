//! Keys and values of the tokens that a layer has seen.

use crate::Result;
use candle_core::Tensor;

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

impl LayerCache {
    /// Appends padded keys and values and gives all of them.
    pub(crate) fn extend_padded(&mut self, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
        let (k, v) = match self {
            Self::Padded(old_k, old_v) => (Tensor::cat(&[&*old_k, &k], 2)?, Tensor::cat(&[&*old_v, &v], 2)?),
            Self::Empty => (k, v),
            Self::BySequence(_) => {
                let reason = "a key-value cache filled sequence by sequence cannot go on padded: keep the same taps";
                return Err(crate::ModelError::Request(reason.into()));
            }
        };
        *self = Self::Padded(k.clone(), v.clone());
        Ok((k, v))
    }

    /// The caches of `sequences` sequences with `kv_heads` heads, filled or new.
    pub(crate) fn by_sequence(&mut self, sequences: usize, kv_heads: usize) -> Result<&mut [SequenceCache]> {
        if matches!(self, Self::Empty) {
            let empty = SequenceCache { keys: vec![Vec::new(); kv_heads], values: vec![Vec::new(); kv_heads] };
            *self = Self::BySequence(vec![empty; sequences]);
        }
        match self {
            Self::BySequence(all) if all.len() == sequences => Ok(all),
            _ => Err(crate::ModelError::Request(format!("the key-value cache is not one of {sequences} sequences"))),
        }
    }
}

//! What a student in NF4 and its training take.

use super::mlp::MlpDemands;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::names::{EMBEDDING, HEAD};
use uspx_kernel::Nf4Matrix;

/// Copies of an adapter in memory: its values, their gradients, the optimiser's two moments, the best so
/// far, and values and best of the training before.
const ADAPTER_COPIES: u64 = 7;

/// Of these, the ones on a GPU that learns: the best ones lie in main memory.
const ON_DEVICE: u64 = 5;

/// Bytes for each value of a matrix while it is quantised: as stored, as floats, and what lies between.
const QUANTISING: u64 = 10;

/// In bytes, unless it says values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nf4Demands {
    /// The layers' linear maps.
    layers: u64,
    /// The head, as it is stored where it is multiplied so. The embedding stays in its file.
    head: u64,
    /// The adapters for each of their rank.
    adapter: u64,
    /// Inputs and outputs of a layer's linear maps, in values, at the most.
    sides: u64,
    /// The layers' inputs, for each token.
    boundaries: u64,
    /// The largest matrix while it is quantised.
    pub loading: u64,
}

impl Nf4Demands {
    pub fn new(config: &ModelConfig, mlps: &[MlpDemands]) -> Self {
        let (hidden, query) = (config.hidden as u64, (config.heads * config.head_dim) as u64);
        let kv = (config.kv_heads * config.head_dim) as u64;
        let attention = hidden * (2 * query + 2 * kv);
        let sides = 4 * hidden + 2 * query + 2 * kv;
        let bytes = |values: u64| Nf4Matrix::bytes_of(values as usize) as u64;
        let widest = mlps.iter().map(|m| m.widest).max().unwrap_or(0);
        Self {
            layers: mlps.iter().map(|m| bytes(attention + m.all)).sum(),
            head: 4 * config.vocab as u64 * hidden,
            adapter: 4 * ADAPTER_COPIES * mlps.iter().map(|m| sides + m.sides).sum::<u64>(),
            sides: sides + mlps.iter().map(|m| m.sides).max().unwrap_or(0),
            boundaries: 4 * (mlps.len() as u64 + 1) * hidden,
            loading: QUANTISING * hidden * query.max(widest),
        }
    }

    /// The same, the head counted as this checkpoint has it: bf16 stays as it is.
    pub fn with_head(self, checkpoint: &Checkpoint) -> Self {
        let name = [HEAD, EMBEDDING].into_iter().find(|name| checkpoint.has(name));
        let stored = name.and_then(|name| checkpoint.type_name(name));
        let bf16 = stored.as_deref() == Some("bf16");
        Self { head: if bf16 { self.head / 2 } else { self.head }, ..self }
    }

    /// What is held of adapters of that rank, however the model is.
    pub fn adapters(&self, rank: usize) -> u64 {
        rank as u64 * self.adapter
    }

    /// What is held of the model and of adapters of that rank.
    pub fn held(&self, rank: usize) -> u64 {
        self.layers + self.head + self.adapters(rank)
    }

    /// The same on a GPU.
    pub fn held_on_device(&self, rank: usize) -> u64 {
        self.layers + self.head + self.adapters(rank) / ADAPTER_COPIES * ON_DEVICE
    }

    /// What is kept of a token: every layer's input, in values of `width` bytes, and of one layer, besides
    /// its activations, what the adapters make of them.
    pub fn token(&self, rank: usize, width: u64) -> u64 {
        self.inputs(width) + 4 * (self.sides + 14 * rank as u64)
    }

    /// Of that, every layer's input.
    pub fn inputs(&self, width: u64) -> u64 {
        self.boundaries / 4 * width
    }
}

//! A memory budget decides whether a model is streamed and how many tokens run together.

mod beside;
mod export;
mod mlp;
mod nf4;
mod plan;

pub use beside::{Beside, Bytes};
pub use plan::Plan;

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::placement::Holding;
use crate::{ModelError, Result, inventory};
use candle_core::Device;
use export::ExportDemands;
use mlp::MlpDemands;
use nf4::Nf4Demands;
use std::path::Path;

/// What a process takes besides the model: code, tokenizer, prompts, allocator slack.
const BASE: u64 = 160 << 20;

/// The same on a GPU: its context and kernels.
const DEVICE_BASE: u64 = 640 << 20;

/// Batches larger than this gain nothing where weights are in memory.
const ENOUGH_HELD: usize = 4096;

/// Where they are read once for every batch, larger ones save reading.
const ENOUGH_STREAMED: usize = 32_768;

/// The smallest batch worth running.
const LEAST: usize = 64;

/// Values for every logit of a row that is differentiated: the logits, their softmax, its gradient
/// and what lies between.
const LOGIT_COPIES: u64 = 5;

/// The same where they are worked on some rows at a time: the logits in their parts and as one, and their
/// gradient.
const DEVICE_LOGITS: u64 = 3;

/// Keys that a query is taken to see where attention lays out all scores at once.
const SEEN: u64 = 256;

/// How often what a backward pass keeps is there on a GPU: attention is padded and repeats its
/// keys, and freed memory stays in pieces (4,056 tokens of gpt-oss-20b's shapes took 2.1 MB each).
const ON_DEVICE: u64 = 2;

/// What attention's gradient takes on a GPU, which lays out some heads' scores at a time.
const DEVICE_SCORES: u64 = 128 << 20;

/// How often the scores are there in a backward pass.
const SCORE_COPIES: u64 = 8;

/// Tokens of a batch that a training's validation runs.
const VALIDATED: u64 = 2048;

/// Tokens of a step of an export's finish, at most.
pub const FINISH_TOKENS: usize = 512;

/// Values of its logits, at most, so that a large vocabulary does not fill the memory.
pub const FINISH_LOGITS: usize = 1 << 24;

/// How often the weights are there in a finish, counted as floats.
const FINISH_COPIES: u64 = 7;

/// Bits of a weight in 4 bits with its share of scales, at most: GPTQ takes 4.2, Q4_0 and Q4_K 4.5.
const FOUR_BITS: u64 = 5;

/// What is refused where a training of floats does not fit: what is held in NF4 may.
pub const TRAINED: &str = "trained";

/// What a model is to do: it decides how its weights are held, and what is kept of a batch's pass
/// beyond one layer's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Nothing is kept: trace, evaluation, answers.
    Forward,
    /// One layer's activations with their gradients.
    Backward,
    /// A forward pass under an adapter: of weights that are expanded to floats, or streamed.
    Adapted,
    /// A forward pass of a 4-bit student: of weights that are expanded to floats, or as its file has them.
    FourBit,
    /// Training an adapter: all layers' activations, and for the validation a second copy of the
    /// weights, the adapter merged.
    Training {
        /// Tokens of its batches.
        batch_tokens: usize,
        /// The adapters' rank.
        rank: usize,
    },
    /// The same of a student held in NF4, by checkpointed gradients: one layer's activations, and every
    /// layer's input.
    TrainingNf4 {
        /// Tokens of its batches.
        batch_tokens: usize,
        /// The adapters' rank.
        rank: usize,
        /// Bytes of a value of what is computed with.
        width: usize,
    },
    /// Writing a student, its layers read from their file one after another and written as they are made.
    Export {
        /// Tokens of a batch that calibrates, at most; 0 where nothing is calibrated.
        batch_tokens: usize,
        /// Whether its codes are to be trained, as far as there is memory: then all weights are there as
        /// they were, places on the grid with the optimiser's two moments, gradients, and the weights that
        /// they come to.
        finish: bool,
    },
}

/// A model's demands, known from its files before anything is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Demands {
    /// Weights in memory as they are stored.
    resident: u64,
    /// Weights in memory as floats.
    floats: u64,
    /// The same of a student of 4 bits that is made of them, at most.
    four_bits: u64,
    /// The largest part that is in memory at once when they are streamed, and in a backward pass.
    streamed: u64,
    streamed_backward: u64,
    /// A token's activations, at their largest.
    token: u64,
    /// What is kept of a token in a layer's backward pass.
    gradient: u64,
    /// A token's attention scores in a backward pass that lays them out, as one on the CPU does not.
    scores: u64,
    /// A token's activations where all layers keep theirs.
    graph: u64,
    /// A row of logits.
    logits: u64,
    /// What writing it in 4 bits takes.
    export: ExportDemands,
    /// Values of a row of the residual stream.
    hidden: u64,
    /// What differs where the layers are held in NF4.
    nf4: Nf4Demands,
    /// What is there beside the model while it runs, in main memory.
    beside: Beside,
}

impl Demands {
    /// Those of a Hugging Face folder.
    ///
    /// # Errors
    /// A folder whose configuration or headers cannot be read, or contradict each other.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let (config, checkpoint) = (ModelConfig::open(folder)?, Checkpoint::open(folder)?);
        checkpoint.named(inventory::check_dimensions(&config, &checkpoint))?;
        let this = Self::new(&config, checkpoint.stored_bytes());
        Ok(Self { nf4: this.nf4.with_head(&checkpoint), ..this })
    }

    fn new(config: &ModelConfig, stored: u64) -> Self {
        let (hidden, query) = (config.hidden as u64, (config.heads * config.head_dim) as u64);
        let kv = (config.kv_heads * config.head_dim) as u64;
        let attention = 2 * hidden * (2 * query + 2 * kv);
        let (panel, vocab) = (8192.min(config.vocab as u64), config.vocab as u64);
        let mlps: Vec<MlpDemands> =
            config.mlps.iter().map(|m| MlpDemands::new(config, m)).collect();
        let most = |of: fn(&MlpDemands) -> u64| mlps.iter().map(of).max().unwrap_or(0);
        let depth = mlps.len() as u64;
        let tables = if config.tied { vocab * hidden } else { 2 * vocab * hidden };
        let layers = depth * attention / 2 + mlps.iter().map(|m| m.all).sum::<u64>();
        let values = 6 * hidden + 3 * (query + kv) + most(|m| m.values);
        let kept = 8 * hidden + 5 * (query + kv) + most(|m| m.kept);
        let streamed = |mlp: u64| attention + mlp + 2 * panel * hidden;
        Self {
            resident: stored,
            floats: 4 * (tables + layers),
            four_bits: 2 * tables + layers * FOUR_BITS / 8,
            streamed: streamed(most(|m| m.at_once)),
            streamed_backward: streamed(most(|m| m.at_once_backward)),
            token: 4 * (values + 3 * panel),
            gradient: 4 * kept.max(LOGIT_COPIES * panel),
            scores: 4 * SCORE_COPIES * SEEN * config.heads as u64,
            graph: 4 * depth * values,
            logits: 4 * vocab,
            export: ExportDemands::new(config, &mlps),
            hidden,
            nf4: Nf4Demands::new(config, &mlps),
            beside: Beside::NOTHING,
        }
    }

    /// The same of a model that runs forward or backward with something else beside it.
    #[must_use]
    pub fn with(self, beside: Beside) -> Self {
        Self { beside, ..self }
    }

    /// The plan for `budget` bytes on `device`. To `stream` is for passes over stored weights.
    ///
    /// # Errors
    /// [`ModelError::Budget`]: a budget too small for even the smallest streamed batch, or for what
    /// needs all weights in memory.
    pub fn plan(&self, budget: u64, work: Workload, stream: bool, device: &Device) -> Result<Plan> {
        match work {
            Workload::Forward => self.passes(budget, (self.streamed, self.token), stream, device),
            Workload::Backward => {
                let on_device = ON_DEVICE * self.gradient + self.scores;
                let token = if device.is_cpu() { self.gradient } else { on_device };
                self.passes(budget, (self.streamed_backward, token), stream, device)
            }
            Workload::Adapted => {
                let streamed = |_| self.passes(budget, (self.streamed, self.token), true, device);
                self.floats(budget, device).or_else(streamed)
            }
            Workload::FourBit => {
                let stored = (Holding::Stored, self.four_bits, self.held(device));
                let stored = |_| batches("in 4 bits", stored, (budget, self.token), device);
                self.floats(budget, device).or_else(stored)
            }
            Workload::Training { batch_tokens, rank } => {
                let batch = batch_tokens as u64;
                // About half of a batch's rows predict an answer.
                let learning = batch * (self.graph + LOGIT_COPIES * self.logits / 2);
                let validating = VALIDATED * (self.token + LOGIT_COPIES * self.logits / 4);
                let held = 2 * self.floats + self.nf4.adapters(rank);
                let needed = held + learning.max(validating);
                fixed(TRAINED, Holding::Floats, (budget, needed), batch_tokens)
            }
            Workload::TrainingNf4 { batch_tokens, rank, width } => {
                let needed = match device {
                    Device::Cpu => self.nf4_on_cpu(batch_tokens, rank),
                    _ => self.nf4_on_device(batch_tokens, rank, width as u64),
                };
                let plan = fixed("trained in NF4", Holding::Nf4, (budget, needed), batch_tokens)?;
                // The layers' inputs are counted: they need no file.
                let kept = batch_tokens * self.nf4.inputs(width as u64) as usize;
                Ok(Plan { boundaries: plan.boundaries + kept, ..plan })
            }
            Workload::Export { batch_tokens, finish } => {
                self.export(budget, (batch_tokens, finish && !stream), device)
            }
        }
    }

    /// What a training in NF4 takes in main memory.
    fn nf4_on_cpu(&self, batch_tokens: usize, rank: usize) -> u64 {
        let token = self.token + self.gradient + self.nf4.token(rank, 4);
        let learning = batch_tokens as u64 * (token + LOGIT_COPIES * self.logits / 2);
        let validating = VALIDATED * (self.token + LOGIT_COPIES * self.logits / 4);
        self.nf4.held(rank) + learning.max(validating).max(self.nf4.loading)
    }

    /// The same on a GPU, of values of `width` bytes: the head's pass and a layer's are not there together.
    fn nf4_on_device(&self, batch_tokens: usize, rank: usize, width: u64) -> u64 {
        let batch = batch_tokens as u64;
        let of_layer = self.gradient * width / 4;
        let of_head = DEVICE_LOGITS * self.logits * width / 4 / 2;
        let learning = batch * (self.nf4.token(rank, width) + of_layer.max(of_head));
        let validating = VALIDATED * self.token * width / 4;
        DEVICE_BASE + DEVICE_SCORES + self.nf4.held_on_device(rank) + learning.max(validating)
    }

    /// An export with its finish where that is asked for and fits, else layer by layer, in batches as large
    /// as there is memory for.
    fn export(
        &self,
        budget: u64,
        (batch_tokens, finish): (usize, bool),
        device: &Device,
    ) -> Result<Plan> {
        let most = self.finishing(batch_tokens);
        let finishing = fixed("exported", Holding::Floats, (budget, most), batch_tokens);
        if let (true, Ok(plan)) = (finish, finishing) {
            return Ok(plan);
        }
        let taken = self.streamed.max(if batch_tokens > 0 { self.export.taken() } else { 0 });
        let streamed = (Holding::Streamed, taken, self.held(device));
        let plan = batches("exported", streamed, (budget, self.token), device)?;
        let batch_tokens = if batch_tokens > 0 { batch_tokens } else { plan.batch_tokens };
        Ok(Plan { batch_tokens: plan.batch_tokens.min(batch_tokens), ..plan })
    }

    /// What an export takes that is finished: the finish, or the rounding before it beside all floats and
    /// their codes.
    fn finishing(&self, batch_tokens: usize) -> u64 {
        let rounding = self.floats + self.floats / 2 + self.export.taken();
        let rounding = rounding + batch_tokens as u64 * self.token;
        let logits = LOGIT_COPIES * 4 * FINISH_LOGITS as u64;
        let learning = FINISH_COPIES * self.floats + FINISH_TOKENS as u64 * self.graph + logits;
        learning.max(rounding)
    }

    /// Passes over weights as they are stored, or `streamed` of them at a time.
    fn passes(
        &self,
        budget: u64,
        (streamed, token): (u64, u64),
        stream: bool,
        device: &Device,
    ) -> Result<Plan> {
        let token = token + self.beside.token.at(self.hidden);
        let held = self.held(device);
        let least = LEAST as u64 * token;
        let fits = self.resident + self.resident / 16 + held + 4 * least <= budget;
        let holding = if stream || !fits { Holding::Streamed } else { Holding::Stored };
        let weights = if holding == Holding::Streamed { streamed } else { self.resident };
        batches("even streamed", (holding, weights, held), (budget, token), device)
    }

    /// What a process takes besides the model on a device.
    fn held(&self, device: &Device) -> u64 {
        // What is beside it is in main memory, on a GPU's machine too.
        if device.is_cpu() { BASE + self.beside.held.at(self.hidden) } else { DEVICE_BASE }
    }

    /// Passes over weights expanded to floats.
    fn floats(&self, budget: u64, device: &Device) -> Result<Plan> {
        let (holding, held) = (Holding::Floats, self.held(device));
        batches("as floats", (holding, self.floats, held), (budget, self.token), device)
    }
}

/// Batches as large as what the weights, and what else is held, leave of the budget.
fn batches(
    what: &'static str,
    (holding, weights, held): (Holding, u64, u64),
    (budget, token): (u64, u64),
    device: &Device,
) -> Result<Plan> {
    let least = LEAST as u64 * token;
    let taken = weights + held;
    let needed = taken + least;
    let left = budget.checked_sub(taken).filter(|left| *left >= least);
    let left = left.ok_or(ModelError::Budget { what, needed, given: budget })?;
    let enough = match (holding, device.is_cpu()) {
        (Holding::Streamed, _) | (_, false) => ENOUGH_STREAMED,
        _ => ENOUGH_HELD,
    };
    // A quarter for boundaries and for what an allocator does not give back at once.
    let room = ((left - left / 4) / token.max(1)).max(LEAST as u64) as usize;
    let boundaries = (left / 8) as usize;
    let batch_tokens = room.min(enough);
    Ok(Plan { holding, batch_tokens, room, boundaries, weights, budget, finishes: false })
}

/// Work whose batches are not the budget's to choose: it fits or not.
fn fixed(
    what: &'static str,
    holding: Holding,
    (budget, taken): (u64, u64),
    batch_tokens: usize,
) -> Result<Plan> {
    let needed = taken + BASE;
    if needed > budget {
        return Err(ModelError::Budget { what, needed, given: budget });
    }
    Ok(Plan {
        holding,
        batch_tokens,
        room: batch_tokens,
        boundaries: ((budget - needed) / 8) as usize,
        weights: taken,
        budget,
        finishes: true,
    })
}

#[cfg(test)]
mod tests;

//! A memory budget decides whether a model is streamed and how many tokens run together.

use crate::checkpoint::Checkpoint;
use crate::config::{Mlp, ModelConfig, Quantisation};
use crate::placement::Holding;
use crate::{ModelError, Result, inventory};
use candle_core::Device;
use std::fmt;
use std::path::Path;

/// What a process takes besides the model: code, tokenizer, prompts, allocator slack.
const BASE: u64 = 160 << 20;

/// Batches larger than this gain nothing where weights are in memory.
const ENOUGH_HELD: usize = 4096;

/// Where they are read once for every batch, larger ones save reading.
const ENOUGH_STREAMED: usize = 32_768;

/// The smallest batch worth running.
const LEAST: usize = 64;

/// What is kept of a batch's pass beyond one layer's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Nothing: trace, evaluation.
    Forward,
    /// One layer's activations with their gradients.
    Backward,
}

/// How a model will be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where its weights are.
    pub holding: Holding,
    /// Tokens run together.
    pub batch_tokens: usize,
    /// Bytes of residual streams kept in memory at layer boundaries; the rest goes to a temporary
    /// file.
    pub boundaries: usize,
    /// Bytes that the weights take.
    pub weights: u64,
    /// The budget, in bytes.
    pub budget: u64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        let mode =
            if self.holding == Holding::Streamed { "streamed from the file" } else { "in memory" };
        let (weights, budget) = (gib(self.weights), gib(self.budget));
        write!(
            f,
            "weights {mode} ({weights:.2} GiB), {} tokens a batch, of {budget:.2} GiB",
            self.batch_tokens
        )
    }
}

/// A model's demands, known from its files before anything is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Demands {
    /// Weights in memory as they are stored.
    resident: u64,
    /// The largest part that is in memory at once when they are streamed.
    streamed: u64,
    /// A token's activations, at their largest.
    token: u64,
}

impl Demands {
    /// Those of a Hugging Face folder.
    ///
    /// # Errors
    /// A folder whose configuration or headers cannot be read, or contradict each other.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let (config, checkpoint) = (ModelConfig::open(folder)?, Checkpoint::open(folder)?);
        checkpoint.named(inventory::check_dimensions(&config, &checkpoint))?;
        Ok(Self::new(&config, checkpoint.stored_bytes()))
    }

    fn new(config: &ModelConfig, stored: u64) -> Self {
        let (hidden, query) = (config.hidden as u64, (config.heads * config.head_dim) as u64);
        let kv = (config.kv_heads * config.head_dim) as u64;
        let attention = 2 * hidden * (2 * query + 2 * kv);
        let panel = 8192.min(config.vocab as u64);
        // (weights at once, values per token) of an MLP. A token's experts are run one after
        // another, and an even spread of a batch over them is not to be counted on.
        let mlp = |mlp: &Mlp| match mlp {
            Mlp::Dense { inner } => (6 * hidden * *inner as u64, 4 * *inner as u64 + hidden),
            Mlp::Experts(m) => {
                let values = 3 * hidden * m.inner as u64;
                let bytes = if config.quantisation == Quantisation::Mxfp4 {
                    values * 17 / 32
                } else {
                    values * 2
                };
                let busiest = (4 * m.top_k).min(m.experts) as u64;
                (
                    2 * bytes,
                    (4 * m.inner as u64 + 2 * hidden) * busiest / m.experts as u64
                        + 2 * m.experts as u64,
                )
            }
        };
        let (weights, values) =
            config.mlps.iter().map(mlp).fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
        Self {
            resident: stored,
            streamed: attention + weights + 2 * panel * hidden,
            token: 4 * (6 * hidden + 3 * (query + kv) + values + 3 * panel),
        }
    }

    /// The plan for `budget` bytes on `device`.
    ///
    /// # Errors
    /// A budget too small for even the smallest streamed batch.
    pub fn plan(&self, budget: u64, work: Workload, stream: bool, device: &Device) -> Result<Plan> {
        let token = if work == Workload::Backward { 5 * self.token } else { self.token };
        let least = LEAST as u64 * token;
        let fits = self.resident + self.resident / 16 + BASE + 4 * least <= budget;
        let holding = if stream || !fits { Holding::Streamed } else { Holding::Stored };
        let weights = if holding == Holding::Streamed { self.streamed } else { self.resident };
        let left = budget.checked_sub(weights + BASE).filter(|left| *left >= least).ok_or_else(|| {
            let needed = (self.streamed + BASE + least) as f64 / f64::from(1 << 20);
            ModelError::Request(format!(
                "the memory budget is too small: even streamed, this model needs {needed:.0} MiB. Give --memory more"
            ))
        })?;
        let enough = match (holding, device.is_cpu()) {
            (Holding::Streamed, _) | (_, false) => ENOUGH_STREAMED,
            _ => ENOUGH_HELD,
        };
        // A quarter for boundaries and for what an allocator does not give back at once.
        let batch_tokens =
            ((left - left / 4) / token).min(enough as u64).max(LEAST as u64) as usize;
        Ok(Plan { holding, batch_tokens, boundaries: (left / 8) as usize, weights, budget })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// gpt-oss-20b.
    fn large() -> Demands {
        let mut config: serde_json::Value =
            serde_json::from_str(include_str!("../../../cli/assets/nano/teacher/config.json"))
                .unwrap();
        for (key, value) in [
            ("hidden_size", 2880),
            ("intermediate_size", 2880),
            ("num_attention_heads", 64),
            ("num_key_value_heads", 8),
            ("head_dim", 64),
            ("num_local_experts", 32),
            ("num_experts_per_tok", 4),
            ("experts_per_token", 4),
            ("vocab_size", 201_088),
        ] {
            config[key] = value.into();
        }
        Demands::new(&ModelConfig::from_json(&config.to_string()).unwrap(), 13 << 30)
    }

    #[test]
    fn what_fits_is_held_and_what_does_not_is_streamed() {
        let plan = |gib: u64, stream| {
            large().plan(gib << 30, Workload::Forward, stream, &Device::Cpu).unwrap()
        };
        assert_eq!(plan(24, false).holding, Holding::Stored);
        assert_eq!(plan(24, true).holding, Holding::Streamed);
        let (four, two) = (plan(4, false), plan(2, false));
        assert_eq!((four.holding, two.holding), (Holding::Streamed, Holding::Streamed));
        assert!(four.batch_tokens > two.batch_tokens && two.batch_tokens >= 1024, "{four} {two}");
    }

    #[test]
    fn a_budget_below_the_least_is_refused_with_what_is_needed() {
        let error = large()
            .plan(200 << 20, Workload::Backward, false, &Device::Cpu)
            .unwrap_err()
            .to_string();
        assert!(error.contains("MiB") && error.contains("--memory"), "{error}");
    }
}

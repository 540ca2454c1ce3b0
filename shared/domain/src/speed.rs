//! How fast a worker was at its last task: what it says of itself, for people and for the size of
//! tasks. Nothing of it is evidence.

use crate::Fingerprint;

/// A worker's speed at one kind of work on one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Speed {
    /// The model.
    pub model: Fingerprint,
    /// The kind of work, by its name ([`crate::Work::name`]).
    pub work: String,
    /// Tokens of prompts a second, each prompt counted as often as it ran (once for every cut).
    pub tokens_per_second: f64,
    /// Tokens of a prompt of the task, on average.
    pub prompt_tokens: f64,
    /// Tokens that it runs together.
    pub batch_tokens: u32,
    /// Whether the model's weights are read from their file for every batch.
    pub streamed: bool,
}

impl Speed {
    /// Seconds that a prompt takes each time it runs.
    pub fn seconds_per_prompt(&self) -> f64 {
        self.prompt_tokens / self.tokens_per_second
    }

    /// Prompts of a full batch.
    pub fn prompts_per_batch(&self) -> f64 {
        f64::from(self.batch_tokens) / self.prompt_tokens
    }

    /// Whether its numbers can be a machine's: finite and above zero, below 10¹².
    pub fn is_possible(&self) -> bool {
        [self.tokens_per_second, self.prompt_tokens].iter().all(|n| *n > 0.0 && *n < 1e12)
    }
}

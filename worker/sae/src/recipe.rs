//! What SAE is trained, and how.

use crate::{Result, SaeError};
use serde::{Deserialize, Serialize};

/// How a token's features are chosen in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The k largest of each token.
    TopK,
    /// The largest of the batch, k a token on average. Afterwards those above a threshold that was
    /// learned beside it: a JumpReLU SAE.
    BatchTopK,
}

/// How long a training lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// So many passes over the prompts.
    Epochs(u32),
    /// So many steps.
    Steps(u64),
}

/// A recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// How features are chosen.
    pub kind: Kind,
    /// Features: d_sae.
    pub features: usize,
    /// Active features of a token.
    pub k: usize,
    /// How long.
    pub length: Length,
    /// Tokens of a step, at most.
    pub batch: usize,
    /// Tokens whose activations are held and mixed together, about.
    pub buffer: usize,
    /// Peak learning rate.
    pub rate: f64,
    /// A feature that has not been active for so many tokens is dead.
    pub dead_after: u64,
    /// Weight of the loss that dead features learn by.
    pub auxiliary: f64,
    /// Positions at the beginning of every prompt that are left out.
    pub skip: usize,
    /// Of all that is random.
    pub seed: u64,
}

impl Default for Recipe {
    fn default() -> Self {
        let features = 1024;
        Self {
            kind: Kind::TopK,
            features,
            k: 8,
            length: Length::Epochs(10),
            batch: 1024,
            buffer: 1 << 15,
            rate: Self::usual_rate(features),
            dead_after: 100_000,
            auxiliary: 1.0 / 32.0,
            skip: 0,
            seed: 0,
        }
    }
}

impl Recipe {
    /// A peak learning rate that suits so many features: 5e-3, beyond 1,024 of them less with the
    /// root of their number (the law of Gao et al. 2024, appendix A.4).
    pub fn usual_rate(features: usize) -> f64 {
        5e-3 * (1024.0 / features.max(1024) as f64).sqrt()
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// What, and within which bounds it should be.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(SaeError::Recipe(what.to_owned()));
        match self {
            r if r.features == 0 || r.features > 1 << 24 => {
                refuse("features must be from 1 to 16777216")
            }
            r if r.k == 0 || r.k > r.features => {
                refuse("k must be at least 1 and at most the number of features")
            }
            r if r.batch == 0 || r.buffer == 0 => {
                refuse("at least one token a step, and one in the buffer, are needed")
            }
            r if matches!(r.length, Length::Epochs(0) | Length::Steps(0)) => {
                refuse("at least one epoch or step is needed")
            }
            r if !(r.rate > 0.0 && r.rate <= 1.0) => {
                refuse("the learning rate must be above 0 and at most 1")
            }
            r if !(r.auxiliary >= 0.0 && r.auxiliary.is_finite()) => {
                refuse("the weight of the auxiliary loss must be 0 or more")
            }
            _ => Ok(()),
        }
    }
}

//! How a sparse autoencoder (SAE) is trained, and what came of it: the same words at the command line,
//! in a campaign and in a task.

use serde::{Deserialize, Serialize};

/// How a token's features are chosen in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaeKind {
    /// The k largest of each token (Gao et al. 2024, arXiv 2406.04093).
    TopK,
    /// The largest of the batch, k a token on average (Bussmann et al. 2024, arXiv 2412.06410).
    /// Afterwards those above a threshold that was learned beside it: a JumpReLU SAE.
    BatchTopK,
}

impl SaeKind {
    /// Both.
    pub const ALL: &[Self] = &[Self::TopK, Self::BatchTopK];

    /// Its name, in files and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopK => "topk",
            Self::BatchTopK => "batchtopk",
        }
    }
}

/// A recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SaeRecipe {
    /// How features are chosen.
    pub kind: SaeKind,
    /// Features: d_sae.
    pub features: usize,
    /// Active features of a token.
    pub k: usize,
    /// Passes over the prompts.
    pub epochs: u32,
    /// Steps, instead of so many passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
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

impl Default for SaeRecipe {
    fn default() -> Self {
        let features = 1024;
        Self {
            kind: SaeKind::TopK,
            features,
            k: 8,
            epochs: 10,
            steps: None,
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

impl SaeRecipe {
    /// A peak learning rate that suits so many features: 5e-3, beyond 1,024 of them less with the
    /// root of their number (the law of Gao et al. 2024, appendix A.4).
    pub fn usual_rate(features: usize) -> f64 {
        5e-3 * (1024.0 / features.max(1024) as f64).sqrt()
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// What, and within which bounds it should be.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            r if r.features == 0 || r.features > 1 << 24 => {
                Err("features must be from 1 to 16777216")
            }
            r if r.k == 0 || r.k > r.features => {
                Err("k must be at least 1 and at most the number of features")
            }
            r if r.batch == 0 || r.buffer == 0 => {
                Err("at least one token a step, and one in the buffer, are needed")
            }
            r if r.steps.unwrap_or(u64::from(r.epochs)) == 0 => {
                Err("at least one epoch or step is needed")
            }
            r if !(r.rate > 0.0 && r.rate <= 1.0) => {
                Err("the learning rate must be above 0 and at most 1")
            }
            r if !(r.auxiliary >= 0.0 && r.auxiliary.is_finite()) => {
                Err("the weight of the auxiliary loss must be 0 or more")
            }
            _ => Ok(()),
        }
    }
}

/// What an SAE is worth, on prompts that it was not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SaeSummary {
    /// Steps of the training.
    pub steps: u64,
    /// Tokens judged.
    pub tokens: u64,
    /// Active features of a token, on average.
    pub l0: f32,
    /// 1 − Σ‖x − x̂‖² ÷ Σ‖x − x̄‖².
    pub explained_variance: f32,
    /// Features that are active on no token.
    pub dead: u32,
    /// The untouched model's loss, nats per response token.
    pub clean: f32,
    /// The loss with the SAE's reconstruction in the activations' place.
    pub grafted: f32,
    /// The loss with zeros there.
    pub zero: f32,
    /// The loss with the activations' mean there.
    pub mean: f32,
}

impl SaeSummary {
    /// The share of what zeros cost that the SAE does not: (zero − grafted) ÷ (zero − clean).
    pub fn recovered(&self) -> f64 {
        let [zero, grafted, clean] = [self.zero, self.grafted, self.clean].map(f64::from);
        (zero - grafted) / (zero - clean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_that_makes_no_sense_says_why() {
        let usual = SaeRecipe::default();
        assert_eq!(usual.check(), Ok(()));
        let bad = [
            (SaeRecipe { k: 0, ..usual }, "k must"),
            (SaeRecipe { features: 4, ..usual }, "k must"),
            (SaeRecipe { features: 1 << 25, ..usual }, "features"),
            (SaeRecipe { batch: 0, ..usual }, "token a step"),
            (SaeRecipe { steps: Some(0), ..usual }, "epoch or step"),
            (SaeRecipe { epochs: 0, ..usual }, "epoch or step"),
            (SaeRecipe { rate: f64::NAN, ..usual }, "learning rate"),
            (SaeRecipe { auxiliary: -1.0, ..usual }, "auxiliary"),
        ];
        for (recipe, word) in bad {
            assert!(recipe.check().unwrap_err().contains(word), "{recipe:?}");
        }
    }

    #[test]
    fn what_is_recovered_lies_between_zeros_and_the_untouched_model() {
        let summary = SaeSummary {
            steps: 1,
            tokens: 1,
            l0: 8.0,
            explained_variance: 0.9,
            dead: 0,
            clean: 1.0,
            grafted: 1.5,
            zero: 6.0,
            mean: 5.0,
        };
        assert!((summary.recovered() - 0.9).abs() < 1e-9);
        assert_eq!(SaeSummary { grafted: 6.0, ..summary }.recovered(), 0.0);
    }
}

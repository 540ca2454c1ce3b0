//! `uspx probe sae`: a sparse autoencoder, trained or judged.

use super::positive;
use super::probe::ProbeArgs;
use crate::rows;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use uspx_sae::{Kind, Recipe, Site};

/// Sparse autoencoders whose features are units.
#[derive(Args, Debug, Clone, Default)]
pub struct SaeFolderArgs {
    /// The folder of a sparse autoencoder, written by `uspx probe sae` or SAELens: its features become
    /// units of the layer that it reads. Once for each layer.
    #[arg(long = "sae", value_name = "DIR")]
    pub folders: Vec<PathBuf>,
}

/// `uspx probe sae`.
#[derive(Args, Debug)]
pub struct SaeArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// The prompts to judge by [default: a tenth of --prompts, drawn by --seed; with --eval all of
    /// them].
    #[arg(long)]
    pub heldout: Option<PathBuf>,
    /// The layer, from 0 [default: the middle one; with --eval the SAE's].
    #[arg(long)]
    pub layer: Option<usize>,
    /// Which value of the layer [default: resid-post; with --eval the SAE's].
    #[arg(long, value_parser = rows::site())]
    pub site: Option<Site>,
    /// How to train.
    #[command(flatten)]
    pub recipe: SaeRecipeArgs,
    /// Steps between two checkpoints, at least.
    #[arg(long, default_value_t = 500, value_parser = positive)]
    pub save_every: usize,
    /// Go on from the checkpoint in --out.
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// The folder to write the SAE to, as SAELens reads it.
    #[arg(long, required_unless_present = "eval")]
    pub out: Option<PathBuf>,
    /// Train nothing: judge the SAE in this folder, SAELens' or one written here.
    #[arg(long, conflicts_with_all = ["out", "heldout"])]
    pub eval: Option<PathBuf>,
    /// List N features, those that tell most about good answers; in JSON all are.
    #[arg(long, default_value_t = 20)]
    pub top: usize,
    /// Take the N features that tell most out, each alone, and keep those whose effect on the loss is
    /// surely not 0 (95 %).
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub confirm: usize,
}

/// How an SAE is trained.
#[derive(Args, Debug)]
pub struct SaeRecipeArgs {
    /// How a token's features are chosen.
    #[arg(long, value_enum, default_value = "topk")]
    pub kind: SaeKind,
    /// Features.
    #[arg(long, default_value_t = usual().features, value_parser = positive)]
    pub features: usize,
    /// Active features of a token (batchtopk: on average).
    #[arg(long, default_value_t = usual().k, value_parser = positive)]
    pub k: usize,
    /// Passes over the prompts.
    #[arg(long, default_value_t = usual().epochs)]
    pub epochs: u32,
    /// Steps, instead of --epochs.
    #[arg(long, conflicts_with = "epochs")]
    pub steps: Option<u64>,
    /// Tokens of a step, at most.
    #[arg(long, default_value_t = usual().batch, value_parser = positive)]
    pub step_tokens: usize,
    /// Tokens whose activations are held and mixed together.
    #[arg(long, default_value_t = usual().buffer, value_parser = positive)]
    pub buffer_tokens: usize,
    /// Peak learning rate of Adam [default: 5e-3, beyond 1024 features less with the root of their
    /// number].
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// A feature that was not active for so many tokens is dead, and learns from what the others
    /// leave over.
    #[arg(long, default_value_t = usual().dead_after)]
    pub dead_after: u64,
    /// Weight of the loss that dead features learn by.
    #[arg(long, default_value_t = usual().auxiliary)]
    pub auxiliary: f64,
    /// Leave out the first N tokens of every prompt, where many models keep outliers [default: 0;
    /// with --eval as the SAE says].
    #[arg(long)]
    pub skip_first: Option<usize>,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = usual().seed)]
    pub seed: u64,
}

/// See [`Kind`].
#[derive(ValueEnum, Debug, Clone, Copy)]
#[value(rename_all = "lowercase")]
pub enum SaeKind {
    /// The k largest of each token.
    TopK,
    /// The largest of a step's tokens together, then those above a threshold that was learned.
    BatchTopK,
}

fn usual() -> Recipe {
    Recipe::default()
}

impl SaeRecipeArgs {
    /// The recipe.
    pub fn recipe(&self) -> Recipe {
        Recipe {
            kind: match self.kind {
                SaeKind::TopK => Kind::TopK,
                SaeKind::BatchTopK => Kind::BatchTopK,
            },
            features: self.features,
            k: self.k,
            epochs: self.epochs,
            steps: self.steps,
            batch: self.step_tokens,
            buffer: self.buffer_tokens,
            rate: self.learning_rate.unwrap_or(Recipe::usual_rate(self.features)),
            dead_after: self.dead_after,
            auxiliary: self.auxiliary,
            skip: self.skip_first.unwrap_or(0),
            seed: self.seed,
        }
    }
}

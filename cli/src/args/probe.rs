//! `uspx probe` and `uspx eval`: a model and prompts, and what is measured.

use super::model::RunArgs;
use super::positive;
use super::sae::{SaeArgs, SaeFolderArgs};
use crate::prompts::PromptSource;
use crate::rows;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use uspx_domain::{Baseline, Estimator, UnitKind};
use uspx_probe::ExpertMode;

/// A model and prompts.
#[derive(Args, Debug, Clone)]
pub struct ProbeArgs {
    /// The model's folder, or a GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// The prompts: JSON lines with `prompt` (and `reference`, `system`) or `messages`.
    #[arg(long)]
    pub prompts: PathBuf,
    /// The prompts are plain text, one a line.
    #[arg(long)]
    pub text: bool,
    /// Use the first N prompts only.
    #[arg(long, value_parser = positive)]
    pub limit: Option<usize>,
    /// Go on without lines that are not prompts.
    #[arg(long)]
    pub skip_bad: bool,
    /// Bound on answers that the model must give itself, where a prompt has no reference.
    #[arg(long, default_value_t = 128)]
    pub max_new_tokens: usize,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
}

impl ProbeArgs {
    /// The prompt file, and how it is to be read.
    pub fn source(&self) -> PromptSource<'_> {
        PromptSource::new(&self.prompts, self.text, self.skip_bad)
    }
}

/// `uspx eval`.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// Whose features are units.
    #[command(flatten)]
    pub saes: SaeFolderArgs,
    /// Evaluate under this mask; KL is then measured against the model without it.
    #[arg(long)]
    pub mask: Option<PathBuf>,
    /// Measure KL against this model (of the same tokenizer).
    #[arg(long, conflicts_with = "mask")]
    pub against: Option<PathBuf>,
    /// Also decode answers greedily and count those equal to the reference.
    #[arg(long)]
    pub exact_match: bool,
}

/// `uspx probe …`.
#[derive(Subcommand, Debug)]
pub enum ProbeCommand {
    /// Routing and activation statistics of one forward pass.
    #[command(
        after_help = "Example: uspx probe trace --model ./teacher --prompts mine.jsonl --json"
    )]
    Trace(TraceArgs),
    /// Effects of single units, exact or by gradient.
    #[command(
        after_help = "Example: uspx probe patch --model ./teacher --prompts mine.jsonl --units expert,head --method atp"
    )]
    Patch(PatchArgs),
    /// The loss under a mask.
    #[command(
        after_help = "Example: uspx probe ablate --model ./teacher --prompts mine.jsonl --mask mask.json"
    )]
    Ablate(AblateArgs),
    /// A sparse autoencoder on one layer: trained, or brought from SAELens, and judged by grafting.
    #[command(
        after_help = "Example: uspx probe sae --model ./teacher --prompts mine.jsonl --layer 1 --out sae"
    )]
    Sae(Box<SaeArgs>),
}

impl ProbeCommand {
    /// What all probes share.
    pub fn common(&self) -> &ProbeArgs {
        match self {
            Self::Trace(a) => &a.common,
            Self::Patch(a) => &a.common,
            Self::Ablate(a) => &a.common,
            Self::Sae(a) => &a.common,
        }
    }
}

/// `uspx probe trace`.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// For benchmarks: the lines of --prompts are token ids, {"ids": [..], "response_start": n}.
    #[arg(long, hide = true)]
    pub tokenised: bool,
    /// For benchmarks: do it so many times.
    #[arg(long, hide = true, default_value_t = 1, value_parser = positive)]
    pub repeat: usize,
}

/// `uspx probe patch`.
#[derive(Args, Debug)]
pub struct PatchArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// Whose features are units.
    #[command(flatten)]
    pub saes: SaeFolderArgs,
    /// Which units [default: expert,head, as far as the method measures them].
    #[arg(long, value_delimiter = ',', value_parser = rows::unit_kind())]
    pub units: Vec<UnitKind>,
    /// How.
    #[arg(long, default_value = "exact", value_parser = rows::effect_estimator())]
    pub method: Estimator,
    /// What replaces a unit (exact: a head or a feature; of experts see --expert-mode) [default: mean
    /// for atp and eap-ig, else zero].
    #[arg(long, value_parser = rows::baseline())]
    pub baseline: Option<Baseline>,
    /// What an exact patch makes of an expert [default: ban].
    #[arg(long)]
    pub expert_mode: Option<ExpertModeArg>,
    /// Decides from which prompt each one is resampled.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Only these layers, as A..B (B not included).
    #[arg(long)]
    pub layers: Option<String>,
    /// Measure inside the model that this mask leaves: what else could go, or what is needed now.
    #[arg(long)]
    pub mask: Option<PathBuf>,
    /// List all units, not only the 20 that cost most.
    #[arg(long)]
    pub all: bool,
    /// For benchmarks: the lines of --prompts are token ids, {"ids": [..], "response_start": n}.
    #[arg(long, hide = true)]
    pub tokenised: bool,
}

/// What becomes of an expert.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpertModeArg {
    /// The router cannot choose it: its tokens go to the next one.
    Ban,
    /// It gives nothing, and the others' gates stay.
    Zero,
}

impl From<ExpertModeArg> for ExpertMode {
    fn from(arg: ExpertModeArg) -> Self {
        match arg {
            ExpertModeArg::Ban => Self::Ban,
            ExpertModeArg::Zero => Self::Zero,
        }
    }
}

impl PatchArgs {
    /// The units that were named, or else the usual ones.
    pub fn kinds(&self) -> Vec<UnitKind> {
        if !self.units.is_empty() {
            return self.units.clone();
        }
        let usual = [UnitKind::Expert, UnitKind::Head];
        usual.into_iter().filter(|kind| self.method.row().kinds.contains(kind)).collect()
    }
}

/// `uspx probe ablate`.
#[derive(Args, Debug)]
pub struct AblateArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// Whose features are units.
    #[command(flatten)]
    pub saes: SaeFolderArgs,
    /// The mask.
    #[arg(long)]
    pub mask: PathBuf,
}

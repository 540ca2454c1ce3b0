//! `uspx probe` and `uspx eval`: a model and prompts, and what is measured.

use super::model::RunArgs;
use super::positive;
use super::report::ReportArgs;
use super::sae::{SaeArgs, SaeFolderArgs};
use crate::prompts::PromptSource;
use crate::rows::{self, Method};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use uspx_domain::{Baseline, UnitKind};
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
    /// Every way to rank units, judged on held-out prompts: how faithful what it keeps is to the
    /// whole model, how far it agrees with exact effects, what it costs. Writes one page.
    #[command(
        after_help = "Example: uspx probe report --model ./teacher --prompts mine.jsonl --held-out heldout.jsonl --out report.html"
    )]
    Report(Box<ReportArgs>),
}

impl ProbeCommand {
    /// What all probes share.
    pub fn common(&self) -> &ProbeArgs {
        match self {
            Self::Trace(a) => &a.common,
            Self::Patch(a) => &a.common,
            Self::Ablate(a) => &a.common,
            Self::Sae(a) => &a.common,
            Self::Report(a) => &a.common,
        }
    }
}

/// `uspx probe trace`.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// Which units.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "expert,head",
        value_parser = rows::unit_kind()
    )]
    pub units: Vec<UnitKind>,
    /// Tell what the prompts' own tokens show too, apart from the answers'.
    #[arg(long)]
    pub prompt_tokens: bool,
    /// Tell for every two experts of a layer how often they have the same token.
    #[arg(long)]
    pub co_activation: bool,
    /// Tell the same of the prompts of each tag alone.
    #[arg(long, conflicts_with = "tokenised")]
    pub by_tag: bool,
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
    #[arg(long, default_value = "exact", value_parser = rows::patch_method())]
    pub method: Method,
    /// What replaces a unit (exact: a head, channel or feature; of experts see --expert-mode) [default:
    /// mean for atp, atp-star, eap-ig and relp, else zero].
    #[arg(long, value_parser = rows::baseline())]
    pub baseline: Option<Baseline>,
    /// What an exact patch makes of an expert [default: ban].
    #[arg(long)]
    pub expert_mode: Option<ExpertModeArg>,
    /// Inputs along the path to a prompt, of the methods that take gradients along one [default: 5].
    #[arg(long, value_parser = positive)]
    pub steps: Option<usize>,
    /// Decides from which prompt each one is resampled, and which are drawn for standard errors of ranks.
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
        let measured = |kind: &UnitKind| match self.method {
            Method::Effects(estimator) => estimator.row().kinds.contains(kind),
            Method::Ensemble => true,
        };
        [UnitKind::Expert, UnitKind::Head].into_iter().filter(measured).collect()
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

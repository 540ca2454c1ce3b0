//! `uspx mask`: units scored and the best of them kept; a mask looked at; a model written without
//! what it cuts.

use super::probe::ProbeArgs;
use super::sae::SaeFolderArgs;
use crate::rows::{self, Ranking};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use uspx_domain::UnitKind;

/// `uspx mask …`.
#[derive(Subcommand, Debug)]
pub enum MaskCommand {
    /// Scores the units on your prompts and keeps the best.
    #[command(
        after_help = "Example: uspx mask build --model ./teacher --prompts mine.jsonl --units expert --keep 0.5 --out mask.json"
    )]
    Build(MaskBuildArgs),
    /// Says what a mask keeps of each layer.
    #[command(after_help = "Example: uspx mask show mask.json")]
    Show(MaskShowArgs),
    /// Writes the model without the experts that a mask cuts: a smaller folder for whatever reads
    /// the model.
    ///
    /// Experts are copied bit for bit, in MXFP4 too. Where layers keep different counts, those with
    /// fewer are filled up with dead experts whose router bias is -inf; a model whose router has no
    /// bias (Mixtral, Qwen3-MoE) needs a mask that keeps as many in every layer: uspx mask build
    /// --spread uniform. A mask of another model, or one that cannot be carried out so, is refused
    /// with exit code 6.
    #[command(
        after_help = "Example: uspx mask export --model ./teacher --mask mask.json --out ./teacher-half"
    )]
    Export(MaskExportArgs),
}

impl MaskCommand {
    /// The number of threads asked for.
    pub fn threads(&self) -> Option<usize> {
        match self {
            Self::Build(args) => args.common.run.machine.threads,
            Self::Show(_) | Self::Export(_) => None,
        }
    }
}

/// `uspx mask show`.
#[derive(Args, Debug)]
pub struct MaskShowArgs {
    /// The mask.
    pub file: PathBuf,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// `uspx mask export`.
#[derive(Args, Debug)]
pub struct MaskExportArgs {
    /// The model's folder, as the mask was made for it.
    #[arg(long)]
    pub model: PathBuf,
    /// The mask: of experts alone.
    #[arg(long)]
    pub mask: PathBuf,
    /// The folder to write; it must not be there yet.
    #[arg(long)]
    pub out: PathBuf,
    /// Print one JSON document on stdout, and progress as JSON lines on stderr.
    #[arg(long)]
    pub json: bool,
}

/// How a budget is spread over layers.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The best of the whole model, with a floor of the router's top-k per layer.
    Global,
    /// As many in every layer.
    Uniform,
}

/// `uspx mask build`.
#[derive(Args, Debug)]
pub struct MaskBuildArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// Whose features are units.
    #[command(flatten)]
    pub saes: SaeFolderArgs,
    /// Which units.
    #[arg(long, default_value = "expert", value_parser = rows::unit_kind())]
    pub units: UnitKind,
    /// The share to keep, above 0 and at most 1.
    #[arg(long)]
    pub keep: f64,
    /// How to score them [default: ensemble].
    #[arg(long, value_parser = rows::ranking())]
    pub method: Option<Ranking>,
    /// Whole masks to try on the prompts, near the one that the scores give: what goes together no
    /// score of single units can tell [default: 64 where no --method is named, else 0].
    #[arg(long)]
    pub search: Option<usize>,
    /// How to spread the budget over layers.
    #[arg(long, value_enum, default_value = "global")]
    pub spread: Spread,
    /// Where to write the mask.
    #[arg(long)]
    pub out: PathBuf,
}

impl MaskBuildArgs {
    /// How units are scored.
    pub fn ranking(&self) -> Ranking {
        self.method.unwrap_or(Ranking::Ensemble)
    }
}

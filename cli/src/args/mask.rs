//! `uspx mask`: units scored and the best of them kept.

use super::probe::ProbeArgs;
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
    /// Which units.
    #[arg(long, default_value = "expert", value_parser = rows::unit_kind())]
    pub units: UnitKind,
    /// The share to keep, above 0 and at most 1.
    #[arg(long)]
    pub keep: f64,
    /// How to score them.
    #[arg(long, default_value = "exact", value_parser = rows::ranking())]
    pub method: Ranking,
    /// How to spread the budget over layers.
    #[arg(long, value_enum, default_value = "global")]
    pub spread: Spread,
    /// Where to write the mask.
    #[arg(long)]
    pub out: PathBuf,
}

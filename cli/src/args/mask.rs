//! `uspx mask`: units scored and the best of them kept.

use super::probe::{Kind, ProbeArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `uspx mask …`.
#[derive(Subcommand, Debug)]
pub enum MaskCommand {
    /// Scores the units on your prompts and keeps the best.
    #[command(
        after_help = "Example: uspx mask build --model ./teacher --prompts mine.jsonl --units expert --keep 0.5 --out mask.json"
    )]
    Build(MaskBuildArgs),
}

/// Ways to score units for a mask.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreMethod {
    /// Change of loss when the unit is cut (the default: measured best).
    Exact,
    /// EASY-EP (experts).
    EasyEp,
    /// Sum of gate times output norm (experts).
    Saliency,
    /// REAP: the same per routed token (experts).
    Reap,
    /// How often it is routed to (experts).
    Frequency,
    /// Attribution patching, made positive per token.
    Atp,
    /// Output norm (heads).
    Norm,
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
    #[arg(long, value_enum, default_value = "expert")]
    pub units: Kind,
    /// The share to keep, above 0 and at most 1.
    #[arg(long)]
    pub keep: f64,
    /// How to score them.
    #[arg(long, value_enum, default_value = "exact")]
    pub method: ScoreMethod,
    /// How to spread the budget over layers.
    #[arg(long, value_enum, default_value = "global")]
    pub spread: Spread,
    /// Where to write the mask.
    #[arg(long)]
    pub out: PathBuf,
}

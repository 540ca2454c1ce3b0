//! `uspx pull` and `uspx run`: students that are published.

use super::model::RunArgs;
use crate::rows;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use uspx_domain::ExportFormat;

/// `uspx pull`.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// The store [default: the one pulled from last].
    pub store: Option<String>,
    /// Which release [default: the newest; after a rollback the one in use, until one is published
    /// that is newer than the one rolled back from].
    #[arg(long)]
    pub release: Option<u64>,
    /// The newest, even where it is the one that was rolled back from.
    #[arg(long, conflicts_with = "release")]
    pub newest: bool,
    /// Where students are kept.
    #[arg(long, env = "USPX_STUDENTS")]
    pub into: Option<PathBuf>,
    /// Read a release that is here already through, and fetch anew what is damaged. Without it,
    /// files that are unchanged since they were verified (by size, time and inode) are not read.
    #[arg(long)]
    pub repair: bool,
    /// Only read the release in use through and tell what is damaged; fetch and change nothing.
    #[arg(long, conflicts_with_all = ["store", "release", "newest", "repair"])]
    pub verify: bool,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// What answers in `uspx run`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// An installed llama.cpp where it is the quicker one, else our own.
    Auto,
    /// Our own.
    Own,
    /// llama.cpp's llama-server, on PATH or where USPX_LLAMA_CPP points.
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

/// `uspx run`.
#[derive(Args, Debug)]
pub struct ChatArgs {
    /// Ask this and end; without it, chat line by line.
    pub prompt: Option<String>,
    /// Where students are kept.
    #[arg(long, env = "USPX_STUDENTS")]
    pub from: Option<PathBuf>,
    /// Run this model instead: a folder or a GGUF file.
    #[arg(long, conflicts_with = "from")]
    pub model: Option<PathBuf>,
    /// Which of the release's formats.
    #[arg(long, default_value = "gguf", value_parser = rows::released_format())]
    pub format: ExportFormat,
    /// What is to answer.
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: Engine,
    /// A system message.
    #[arg(long)]
    pub system: Option<String>,
    /// 0 is greedy; above it, answers are drawn.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f64,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Bound on an answer.
    #[arg(long, default_value_t = 256)]
    pub max_new_tokens: usize,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
}

//! `uspx errbench`: the person's prompts.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `uspx errbench`.
#[derive(Subcommand, Debug)]
pub enum ErrbenchCommand {
    /// Gives a colony more prompts: it takes them while it runs, or at its next start.
    #[command(after_help = "Example: uspx errbench add new.jsonl --state ./colony")]
    Add(ErrbenchAddArgs),
}

/// `uspx errbench add`.
#[derive(Args, Debug)]
pub struct ErrbenchAddArgs {
    /// The prompts, one a line. One under the name of another takes its place.
    pub file: PathBuf,
    /// The state folder of a coordinator on this machine.
    #[arg(long, env = "USPX_STATE", default_value = ".")]
    pub state: PathBuf,
    /// The prompts are plain text, one a line.
    #[arg(long)]
    pub text: bool,
    /// Go on without lines that are not prompts.
    #[arg(long)]
    pub skip_bad: bool,
    /// Add prompts although something in them looks like a secret.
    #[arg(long)]
    pub allow_secrets: bool,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

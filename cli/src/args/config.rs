//! `uspx config`: a configuration to begin with, and what one says.

use crate::settings::table::Role;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `uspx config`.
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Writes a file with every key, its unit and its default, all commented out.
    #[command(after_help = "Example: uspx config init --out uspx.toml")]
    Init(ConfigInitArgs),
    /// Says what each role would use, where each value comes from, and what is wrong.
    #[command(after_help = "Example: uspx config check -c uspx.toml --role coordinator")]
    Check(ConfigCheckArgs),
}

/// `uspx config init`.
#[derive(Args, Debug)]
pub struct ConfigInitArgs {
    /// The file to write; it must not exist.
    #[arg(long, default_value = "uspx.toml")]
    pub out: PathBuf,
}

/// `uspx config check`.
#[derive(Args, Debug)]
pub struct ConfigCheckArgs {
    /// The configuration.
    #[arg(short, long)]
    pub config: Option<PathBuf>,
    /// Look at one role only; what it lacks is wrong then.
    #[arg(long, value_enum)]
    pub role: Option<Role>,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

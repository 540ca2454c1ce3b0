//! `uspx ledger`: is the ledger whole?

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `uspx ledger`.
#[derive(Subcommand, Debug)]
pub enum LedgerCommand {
    /// Reads the ledger through: how many records, how far synced, whether whole. Changes nothing,
    /// and may run beside a coordinator.
    #[command(after_help = "Example: uspx ledger check --state ./uspx-demo/colony")]
    Check(LedgerCheckArgs),
}

/// `uspx ledger check`.
#[derive(Args, Debug)]
pub struct LedgerCheckArgs {
    /// The state folder of a coordinator on this machine.
    #[arg(long, env = "USPX_STATE", default_value = ".")]
    pub state: PathBuf,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

//! `uspx ledger`: is the ledger whole, and what to do with it.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `uspx ledger`.
#[derive(Subcommand, Debug)]
pub enum LedgerCommand {
    /// Reads the ledger through: how many records, how far synced, whether whole. Changes nothing,
    /// and may run beside a coordinator.
    #[command(after_help = "Example: uspx ledger check --state ./uspx-demo/colony")]
    Check(LedgerCheckArgs),
    /// Cuts a damaged ledger to its longest good beginning, and says what that loses. Both files are
    /// copied aside first; a whole ledger is left alone. Not beside a coordinator.
    #[command(after_help = "Example: uspx ledger repair --state ./colony --dry-run")]
    Repair(LedgerRepairArgs),
    /// Writes the ledger into one file, to go on with on another machine. Not beside a coordinator.
    #[command(after_help = "Example: uspx ledger export colony.tar --state ./colony")]
    Export(LedgerExportArgs),
    /// Begins a state folder with an exported ledger, every byte of it verified first.
    #[command(after_help = "Example: uspx ledger import colony.tar --state ./colony")]
    Import(LedgerImportArgs),
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

/// `uspx ledger repair`.
#[derive(Args, Debug)]
pub struct LedgerRepairArgs {
    /// The state folder of a coordinator on this machine.
    #[arg(long, env = "USPX_STATE", default_value = ".")]
    pub state: PathBuf,
    /// Only tell what a repair would keep and lose.
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// `uspx ledger export`.
#[derive(Args, Debug)]
pub struct LedgerExportArgs {
    /// The file to write; it must not exist.
    pub file: PathBuf,
    /// The state folder of a coordinator on this machine.
    #[arg(long, env = "USPX_STATE", default_value = ".")]
    pub state: PathBuf,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// `uspx ledger import`.
#[derive(Args, Debug)]
pub struct LedgerImportArgs {
    /// A file that `uspx ledger export` wrote.
    pub file: PathBuf,
    /// The state folder to begin; it must hold no ledger.
    #[arg(long, env = "USPX_STATE", default_value = ".")]
    pub state: PathBuf,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

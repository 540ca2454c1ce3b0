//! `uspx store`: what nothing needs any more.

use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// The shortest age of blobs to delete: an upload, and the answer that names it, may be under way.
const SHORTEST: Duration = Duration::from_secs(3600);

/// `uspx store`.
#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// Deletes blobs that no ledger record and no release names. Holds the ledger meanwhile: stop
    /// the coordinator first (not for --dry-run).
    #[command(
        after_help = "Example: uspx store collect --store s3://bucket/uspx --state ./colony --dry-run"
    )]
    Collect(StoreCollectArgs),
}

/// `uspx store collect`.
#[derive(Args, Debug)]
pub struct StoreCollectArgs {
    /// The object store: a folder or s3://bucket/prefix.
    #[arg(long, env = "USPX_STORE")]
    pub store: String,
    /// The state folder of every coordinator that ever worked with this store; repeat it for more.
    #[arg(long, env = "USPX_STATE", required = true)]
    pub state: Vec<PathBuf>,
    /// Keep what is younger: longer than any answer or task message waits to be read.
    #[arg(long, default_value = "7d", value_parser = age)]
    pub older_than: Duration,
    /// Only tell what would be deleted.
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(age) if age >= SHORTEST => Ok(age),
        Ok(_) => Err("at least 1h: uploads may be under way".to_owned()),
        Err(error) => Err(format!("{error}; write 7d or 36h")),
    }
}

//! `uspx student`: the releases of a store, and going back to an earlier one.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `uspx student`.
#[derive(Subcommand, Debug)]
pub enum StudentCommand {
    /// The releases that a store holds, and which of them is in use here. With --state, also the
    /// students that the colony's gate refused, each with its reason.
    #[command(after_help = "Example: uspx student list s3://bucket/uspx --state ./colony")]
    List(StudentListArgs),
    /// What changed from one release to another: mask, scores, sizes, training.
    #[command(after_help = "Example: uspx student diff 1 2 s3://bucket/uspx")]
    Diff(StudentDiffArgs),
    /// Makes an earlier release the one in use again.
    ///
    /// It is read through first; one that the folder no longer has whole is fetched. Nothing is
    /// removed. A later `uspx pull` stays at it until a release is published that is newer than the one
    /// rolled back from, or until --newest or --release asks for another.
    #[command(after_help = "Example: uspx student rollback --to 1")]
    Rollback(StudentRollbackArgs),
}

/// `uspx student list`.
#[derive(Args, Debug)]
pub struct StudentListArgs {
    /// The store [default: the one pulled from last].
    pub store: Option<String>,
    /// Where students are kept.
    #[arg(long, env = "USPX_STUDENTS")]
    pub into: Option<PathBuf>,
    /// The state folder of the coordinator, whose reports tell of refused students.
    #[arg(long, env = "USPX_STATE")]
    pub state: Option<PathBuf>,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// `uspx student diff`.
#[derive(Args, Debug)]
pub struct StudentDiffArgs {
    /// The one release.
    pub from: u64,
    /// The other.
    pub to: u64,
    /// The store [default: the one pulled from last].
    pub store: Option<String>,
    /// Where students are kept.
    #[arg(long, env = "USPX_STUDENTS")]
    pub into: Option<PathBuf>,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// `uspx student rollback`.
#[derive(Args, Debug)]
pub struct StudentRollbackArgs {
    /// The store to fetch from what the folder no longer has [default: the one pulled from last].
    pub store: Option<String>,
    /// Which release [default: the newest earlier one in the folder, else the one before in the store].
    #[arg(long)]
    pub to: Option<u64>,
    /// Where students are kept.
    #[arg(long, env = "USPX_STUDENTS")]
    pub into: Option<PathBuf>,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

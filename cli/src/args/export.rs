//! `uspx export`: one 4-bit student, written here.

use super::probe::ProbeArgs;
use crate::rows;
use clap::Args;
use std::path::PathBuf;
use uspx_domain::ExportFormat;

/// `uspx export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The student, and the prompts whose activations calibrate the quantiser. It is held in memory
    /// as 32-bit floats.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// An adapter to merge: the folder that `uspx distill` wrote, or its tensors' file.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Into what.
    #[arg(long, value_parser = rows::format())]
    pub format: ExportFormat,
    /// The folder to write; it must not be there yet.
    #[arg(long)]
    pub out: PathBuf,
}

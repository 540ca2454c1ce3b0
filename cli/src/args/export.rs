//! `uspx export`: one student, written here: in 4 bits, or as floats with its adapter merged.

use super::probe::ProbeArgs;
use crate::rows;
use clap::Args;
use std::path::PathBuf;
use uspx_domain::ExportFormat;

/// What a student is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// 4 bits.
    FourBit(ExportFormat),
    /// A Hugging Face folder of floats.
    Floats,
}

impl Written {
    /// The name of [`Self::Floats`].
    pub const FLOATS: &str = "hf";
}

/// `uspx export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The student, and the prompts whose activations calibrate the quantiser. A finish holds it in memory as
    /// 32-bit floats; without one it is read layer by layer.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// An adapter to merge: the folder that `uspx distill` wrote, or its tensors' file.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Into what.
    #[arg(long, value_parser = rows::written())]
    pub format: Written,
    /// Passes over the prompts that recover what 4 bits cost (the quantisation-aware finish); 0 leaves it out,
    /// and 4 are made where nothing is said, but for what is only a yardstick.
    #[arg(long)]
    pub finish: Option<u32>,
    /// The folder to write; it must not be there yet.
    #[arg(long)]
    pub out: PathBuf,
}

//! `uspx mask`: units scored and the best of them kept; a mask looked at; a model written without
//! what it cuts.

use super::export::Written;
use super::keep::{self, KeepShare};
use super::probe::ProbeArgs;
use super::sae::SaeFolderArgs;
use crate::rows::{self, Ranking};
use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use std::fmt;
use std::path::PathBuf;
use uspx_colony::Share;
use uspx_domain::{Unit, UnitKind};

/// `uspx mask …`.
#[derive(Subcommand, Debug)]
pub enum MaskCommand {
    /// Scores the units on your prompts and keeps the best.
    #[command(
        after_help = "Example: uspx mask build --model ./teacher --prompts mine.jsonl --units expert --keep 0.5 --out mask.json"
    )]
    Build(Box<MaskBuildArgs>),
    /// Says what a mask keeps of each layer; of a colony's mask also every unit's effect with its interval, and how
    /// many units stand on the wrong side of the cut.
    #[command(after_help = "Example: uspx mask show --state ./colony")]
    Show(MaskShowArgs),
    /// Says why a colony's mask keeps a unit or cuts it: its effect, which prompts need it, who measured it.
    #[command(after_help = "Example: uspx mask why expert:2.17 --state ./colony")]
    Why(MaskWhyArgs),
    /// Says which units came and went between two masks; of two versions of a colony's mask also why, and
    /// which prompts that touches.
    #[command(after_help = "Example: uspx mask diff 3 7 --state ./colony")]
    Diff(MaskDiffArgs),
    /// Writes the model without what a mask cuts, experts of a mixture or layers, heads and channels of
    /// a dense model: a smaller folder for whatever reads the model.
    ///
    /// What is kept is copied bit for bit, in MXFP4 too. A layer of a dense model whose every head and
    /// channel the mask cuts goes whole (uspx mask build --units head,channel --spread layers); those
    /// that stay want as many heads of each KV head, and as many channels, in every layer: uspx mask
    /// build --units head,channel --spread uniform. Of experts: where layers keep different counts, those with
    /// fewer are filled up with dead experts whose router bias is -inf; a model whose router has no
    /// bias (Mixtral, Qwen3-MoE) needs a mask that keeps as many in every layer: uspx mask build
    /// --spread uniform. A mask of another model, or one that cannot be carried out so, is refused
    /// with exit code 6.
    #[command(
        after_help = "Example: uspx mask export --model ./teacher --mask mask.json --out ./teacher-half"
    )]
    Export(MaskExportArgs),
}

impl MaskCommand {
    /// The number of threads asked for.
    pub fn threads(&self) -> Option<usize> {
        match self {
            Self::Build(args) => args.common.run.machine.threads,
            Self::Show(_) | Self::Why(_) | Self::Diff(_) | Self::Export(_) => None,
        }
    }
}

/// `uspx mask why`.
#[derive(Args, Debug)]
pub struct MaskWhyArgs {
    /// The unit: its kind, layer and index, as expert:2.17.
    pub unit: Unit,
    /// The state folder of a coordinator on this machine; it may be running.
    #[arg(long, env = "USPX_STATE", default_value = ".")]
    pub state: PathBuf,
    /// Prompts that are named of those that need it, and of those that do better without it.
    #[arg(long, default_value_t = 5)]
    pub prompts: usize,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// `uspx mask diff`.
#[derive(Args, Debug)]
pub struct MaskDiffArgs {
    /// A mask's file, or the number of a version of the colony's mask (./7 is a file of that name).
    pub first: MaskName,
    /// The mask to compare it with.
    pub second: MaskName,
    /// For versions: the state folder of a coordinator on this machine; it may be running.
    #[arg(long, env = "USPX_STATE", default_value = ".")]
    pub state: PathBuf,
    /// Prompts that are named of each unit, and of those that the change touches most.
    #[arg(long, default_value_t = 5)]
    pub prompts: usize,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// What names a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaskName {
    /// A version of the colony's mask.
    Version(u32),
    /// A file.
    File(PathBuf),
}

impl MaskName {
    /// The version, where it is one.
    pub fn version(&self) -> Option<u32> {
        match self {
            Self::Version(number) => Some(*number),
            Self::File(_) => None,
        }
    }
}

impl From<&str> for MaskName {
    fn from(name: &str) -> Self {
        name.parse().map_or_else(|_| Self::File(name.into()), Self::Version)
    }
}

impl fmt::Display for MaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(number) => write!(f, "version {number}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// `uspx mask show`.
#[derive(Args, Debug)]
pub struct MaskShowArgs {
    /// A mask's file, or the number of a version of the colony's mask (./7 is a file of that name); without it the
    /// colony's latest.
    pub mask: Option<MaskName>,
    /// For versions: the state folder of a coordinator on this machine; it may be running.
    #[arg(long, env = "USPX_STATE", default_value = ".")]
    pub state: PathBuf,
    /// For versions: units that are named of those nearest to the cut; --json names all.
    #[arg(long, default_value_t = 10)]
    pub units: usize,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// `uspx mask export`.
#[derive(Args, Debug)]
pub struct MaskExportArgs {
    /// The model's folder, as the mask was made for it.
    #[arg(long)]
    pub model: PathBuf,
    /// The mask: of experts alone, or of layers, heads and channels of a dense model.
    #[arg(long)]
    pub mask: PathBuf,
    /// An adapter of the model to merge first, as floats: the folder that `uspx distill` wrote, or its
    /// tensors' file. The mask is of the model without it.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// The folder to write; it must not be there yet.
    #[arg(long)]
    pub out: PathBuf,
    /// Print one JSON document on stdout, and progress as JSON lines on stderr.
    #[arg(long)]
    pub json: bool,
}

/// How a budget is spread over layers.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The best of the whole model, with a floor of the router's top-k per layer.
    Global,
    /// As many in every layer; of heads as many of each KV head too, where the number divides.
    Uniform,
    /// Whole layers of a dense model: of --units head,channel all or nothing, by what the loss rises by
    /// without them, measured anew after each that goes. --keep is the share of the layers.
    Layers,
}

/// `uspx mask build`.
#[derive(Args, Debug)]
pub struct MaskBuildArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// Whose features are units.
    #[command(flatten)]
    pub saes: SaeFolderArgs,
    /// Which units; of several kinds each is cut within what the ones before it leave.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "expert",
        value_parser = rows::unit_kind()
    )]
    pub units: Vec<UnitKind>,
    /// The share to keep, above 0 and at most 1; one for each kind: head=0.5,channel=0.75.
    #[arg(long, value_delimiter = ',', required_unless_present = "target_bytes")]
    pub keep: Vec<KeepShare>,
    /// Keep as much as fits into weights of so many bytes, in the place of --keep: of a dense model,
    /// one share of all kinds, --units head,channel --spread uniform --target-bytes 3GiB.
    #[arg(long, conflicts_with = "keep")]
    pub target_bytes: Option<ByteSize>,
    /// What the student whose weights are to fit is written as in the end, by uspx export; hf: as uspx
    /// mask export leaves it.
    #[arg(long, requires = "target_bytes", value_parser = rows::written(), default_value = "gptq")]
    pub target_format: Written,
    /// How to score them [default: ensemble].
    #[arg(long, value_parser = rows::ranking())]
    pub method: Option<Ranking>,
    /// Whole masks to try on the prompts, near the one that the scores give: what goes together no
    /// score of single units can tell [default: 64 where no --method is named, else 0].
    #[arg(long)]
    pub search: Option<usize>,
    /// How to spread the budget over layers.
    #[arg(long, value_enum, default_value = "global")]
    pub spread: Spread,
    /// Where to write the mask.
    #[arg(long)]
    pub out: PathBuf,
}

impl MaskBuildArgs {
    /// The kinds to cut, each with the share to keep; `None` where --keep has none for it.
    pub fn budgets(&self) -> impl Iterator<Item = (UnitKind, Option<Share>)> {
        self.units.iter().map(|kind| (*kind, keep::of(&self.keep, *kind)))
    }

    /// A kind that --keep names and --units does not.
    pub fn superfluous(&self) -> Option<UnitKind> {
        keep::superfluous(&self.keep, &self.units)
    }

    /// How units are scored.
    pub fn ranking(&self) -> Ranking {
        self.method.unwrap_or(Ranking::Ensemble)
    }
}

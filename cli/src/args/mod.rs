//! The command line: every command and example; the flags of each stand in the modules below.

mod answers;
mod colony;
mod config;
mod distill;
mod errbench;
mod export;
mod keep;
mod ledger;
mod mask;
mod model;
mod probe;
mod releases;
mod report;
mod sae;
mod store;
mod student;

use clap::{Parser, Subcommand};

pub use answers::TEACHER_KEY;
pub use colony::{CoordinatorArgs, DemoArgs, StatusArgs, UpArgs, WordCommand, WorkerArgs};
pub use config::{ConfigCheckArgs, ConfigCommand, ConfigInitArgs};
pub use distill::DistillArgs;
pub use errbench::{ErrbenchAddArgs, ErrbenchCommand};
pub use export::{ExportArgs, Written};
pub use ledger::{
    LedgerCheckArgs, LedgerCommand, LedgerExportArgs, LedgerImportArgs, LedgerRepairArgs,
};
pub use mask::{
    MaskBuildArgs, MaskCommand, MaskDiffArgs, MaskExportArgs, MaskName, MaskShowArgs, MaskWhyArgs,
    Spread,
};
pub use model::{MachineArgs, Precision, RunArgs};
pub use probe::{
    AblateArgs, EvalArgs, ExpertModeArg, PatchArgs, ProbeArgs, ProbeCommand, TraceArgs,
};
pub use releases::{StudentCommand, StudentDiffArgs, StudentListArgs, StudentRollbackArgs};
pub use report::ReportArgs;
pub use sae::{SaeArgs, SaeFolderArgs};
pub use store::{StoreCollectArgs, StoreCommand};
pub use student::{ChatArgs, Engine, PullArgs};

/// Finds which parts of a large model matter for your own prompts, and makes a small 4-bit student
/// of them.
#[derive(Parser, Debug)]
#[command(name = "uspx", version, propagate_version = true, after_help = "Begin with: uspx demo")]
pub struct Cli {
    /// Log more (twice: much more). USPX_LOG chooses finely.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The level that `-v` asks for; without it, coordinator and worker tell what they do.
    pub fn log_level(&self) -> &'static str {
        match self.verbose {
            0 if self.command.tells() => uspx_runtime::telemetry::TELLING,
            0 => "warn",
            1 => "info",
            _ => "debug",
        }
    }
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// The whole loop on a small teacher and student that come with uspx.
    #[command(after_help = "Example: uspx demo --workers 2 --out ./uspx-demo")]
    Demo(DemoArgs),
    /// The whole loop on this machine, on your own models and prompts.
    #[command(
        after_help = "Example: uspx up --teacher ./teacher --student ./student --prompts mine.jsonl --plan"
    )]
    Up(UpArgs),
    /// The coordinator of a colony over NATS.
    #[command(
        after_help = "Example: uspx coordinator -c uspx.toml --nats nats://box:4222 --store s3://bucket/uspx"
    )]
    Coordinator(CoordinatorArgs),
    /// A worker of a colony over NATS.
    #[command(
        after_help = "Example: uspx worker --name spare-box --nats nats://box:4222 --store s3://bucket/uspx --models ./teacher,./student"
    )]
    Worker(WorkerArgs),
    /// Your prompts: more of them for a colony.
    #[command(subcommand, after_help = "Example: uspx errbench add new.jsonl --state ./colony")]
    Errbench(ErrbenchCommand),
    /// Fetches and verifies the newest student.
    #[command(after_help = "Example: uspx pull s3://bucket/uspx")]
    Pull(PullArgs),
    /// Releases: which there are, what changed between two, going back to an earlier one.
    #[command(subcommand, after_help = "Example: uspx student list s3://bucket/uspx")]
    Student(StudentCommand),
    /// Chats with the student that was pulled.
    #[command(after_help = "Example: uspx run \"List files by size\"")]
    Run(ChatArgs),
    /// The colony at a glance.
    #[command(after_help = "Example: uspx status --nats nats://box:4222 --watch")]
    Status(StatusArgs),
    /// Loss, divergence and speed of a model on prompts.
    #[command(
        after_help = "Example: uspx eval --model ./teacher --prompts mine.jsonl --mask mask.json"
    )]
    Eval(EvalArgs),
    /// One probe on this machine, without a colony.
    #[command(
        subcommand,
        after_help = "Example: uspx probe trace --model ./teacher --prompts mine.jsonl"
    )]
    Probe(ProbeCommand),
    /// Masks: build one here without a colony, look at one, write a model without what it cuts.
    #[command(
        subcommand,
        after_help = "Example: uspx mask build --model ./teacher --prompts mine.jsonl --keep 0.5 --out mask.json"
    )]
    Mask(MaskCommand),
    /// The teacher labels prompts and a student learns them, here without a colony.
    #[command(
        after_help = "Example: uspx distill --teacher ./teacher --student ./student --prompts mine.jsonl --out adapter"
    )]
    Distill(DistillArgs),
    /// Writes a student in 4 bits, here without a colony.
    #[command(
        after_help = "Example: uspx export --model ./student --adapter ./adapter --prompts mine.jsonl --format gguf --out student-gguf"
    )]
    Export(ExportArgs),
    /// The ledger: check it, repair it, move it to another machine.
    #[command(subcommand, after_help = "Example: uspx ledger check --state ./uspx-state")]
    Ledger(LedgerCommand),
    /// The object store: delete what nothing needs any more.
    #[command(
        subcommand,
        after_help = "Example: uspx store collect --store s3://bucket/uspx --state ./uspx-state --dry-run"
    )]
    Store(StoreCommand),
    /// The configuration of coordinator and worker: a file to begin with, and what one says.
    #[command(subcommand, after_help = "Example: uspx config init")]
    Config(ConfigCommand),
    /// Prints completions for a shell.
    #[command(
        after_help = "Example: uspx completions bash > ~/.local/share/bash-completion/completions/uspx"
    )]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether it works for long with nothing else to show. A worker that its parent started is its
    /// parent's to show.
    fn tells(&self) -> bool {
        match self {
            Self::Coordinator(args) => args.word.is_none(),
            Self::Worker(args) => !args.with_parent,
            _ => false,
        }
    }

    /// The number of threads asked for.
    pub fn threads(&self) -> Option<usize> {
        match self {
            Self::Eval(a) => a.common.run.machine.threads,
            Self::Probe(p) => p.common().run.machine.threads,
            Self::Mask(command) => command.threads(),
            Self::Distill(a) => a.run.machine.threads,
            Self::Export(a) => a.common.run.machine.threads,
            Self::Demo(a) => Some(a.threads_per_worker()),
            Self::Up(a) => Some(a.threads_per_worker()),
            Self::Worker(a) => crate::commands::worker::threads(a),
            Self::Run(a) => a.run.machine.threads,
            Self::Coordinator(_)
            | Self::Errbench(_)
            | Self::Pull(_)
            | Self::Student(_)
            | Self::Status(_)
            | Self::Ledger(_)
            | Self::Store(_)
            | Self::Config(_)
            | Self::Completions { .. } => None,
        }
    }
}

/// A count of at least one.
fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(n) => Ok(n),
        Err(e) => Err(format!("{e}")),
    }
}

#[cfg(test)]
mod tests;

//! `uspx demo`, `uspx coordinator`, `uspx worker` and `uspx status`: the parts of a colony.

use super::positive;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `uspx demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Workers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub workers: u16,
    /// Threads of each worker [default: the cores shared out].
    #[arg(long, value_parser = positive)]
    pub threads: Option<usize>,
    /// Over a real NATS server, workers as processes: `auto` starts one, a URL uses yours.
    #[arg(long, value_name = "auto|URL")]
    pub nats: Option<String>,
    /// The object store: a folder or s3://bucket/prefix [default: a folder in --out].
    #[arg(long)]
    pub store: Option<String>,
    /// Where everything is put. Started again with the same folder, the demo goes on.
    #[arg(long, default_value = "uspx-demo")]
    pub out: PathBuf,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

impl DemoArgs {
    /// Threads of each worker: two on one core are far slower than one.
    pub fn threads_per_worker(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or((cores / usize::from(self.workers)).max(1))
    }
}

/// `uspx coordinator`: flags win over the environment (`USPX_…`), and that over the file.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CoordinatorArgs {
    /// A word to a coordinator that runs.
    #[command(subcommand)]
    pub word: Option<WordCommand>,
    /// The configuration (deploy/uspx.toml is an example).
    #[arg(short, long)]
    pub config: Option<PathBuf>,
    /// The NATS server.
    #[arg(long)]
    pub nats: Option<String>,
    /// The object store.
    #[arg(long)]
    pub store: Option<String>,
    /// Where ledger and mask are kept.
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Prompts to probe and distil on.
    #[arg(long)]
    pub train: Option<PathBuf>,
    /// Prompts for choices [default: the last twentieth of the training prompts].
    #[arg(long)]
    pub validation: Option<PathBuf>,
    /// Held-out prompts for the release gate.
    #[arg(long)]
    pub gate: Option<PathBuf>,
}

/// What a person can say to a running coordinator.
#[derive(Subcommand, Debug)]
pub enum WordCommand {
    /// Tries now whatever waits: workers that rest, a release that could not be stored.
    #[command(after_help = "Example: uspx coordinator retry --state ./uspx-state")]
    Retry(WordArgs),
    /// Gives up whatever waits: tasks that no worker can do now, a release that is held.
    #[command(after_help = "Example: uspx coordinator abandon --state ./uspx-state")]
    Abandon(WordArgs),
}

/// Whom it is said to.
#[derive(Args, Debug)]
pub struct WordArgs {
    /// The coordinator's state folder.
    #[arg(long)]
    pub state: PathBuf,
}

/// `uspx worker`: flags win over the environment (`USPX_…`), and that over the file.
#[derive(Args, Debug)]
pub struct WorkerArgs {
    /// The configuration.
    #[arg(short, long)]
    pub config: Option<PathBuf>,
    /// This worker's name.
    #[arg(long)]
    pub name: Option<String>,
    /// The NATS server.
    #[arg(long)]
    pub nats: Option<String>,
    /// The object store.
    #[arg(long)]
    pub store: Option<String>,
    /// Model folders on this machine.
    #[arg(long, value_delimiter = ',')]
    pub models: Option<Vec<PathBuf>>,
    /// Where finished work is kept until it is taken, with room for a student
    /// [default: ~/.local/state/uspx/NAME].
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Where to run: cpu, cuda:0, metal.
    #[arg(long)]
    pub device: Option<String>,
    /// Threads for the mathematics [default: the physical cores].
    #[arg(long, env = "USPX_THREADS", value_parser = positive)]
    pub threads: Option<usize>,
    /// Tokens run together.
    #[arg(long, value_parser = positive)]
    pub batch_tokens: Option<usize>,
    /// End when standard input closes: a parent process that dies takes its workers along.
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// `uspx status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Ask this NATS server.
    #[arg(long)]
    pub nats: Option<String>,
    /// Read the state folder of a coordinator on this machine.
    #[arg(long, conflicts_with = "nats")]
    pub state: Option<PathBuf>,
    /// Show it again every two seconds.
    #[arg(long)]
    pub watch: bool,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

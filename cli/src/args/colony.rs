//! `uspx demo`, `uspx up`, `uspx coordinator`, `uspx worker` and `uspx status`: a colony and its
//! parts.

use super::{MachineArgs, positive};
use clap::{Args, Subcommand};
use serde::Serialize;
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
    /// Threads of each worker.
    pub fn threads_per_worker(&self) -> usize {
        self.threads.unwrap_or_else(|| shared_out(self.workers))
    }
}

/// `uspx up`: flags win over the environment (`USPX_…`), and that over the file.
#[derive(Args, Debug)]
pub struct UpArgs {
    /// The configuration (deploy/uspx.toml is an example).
    #[arg(short, long)]
    pub config: Option<PathBuf>,
    /// What may stand in the configuration too.
    #[command(flatten)]
    pub values: UpValues,
    /// Workers on this machine [default: 2, or 1 on a GPU or a single core].
    #[arg(long, env = "USPX_WORKERS", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub workers: Option<u16>,
    /// Where, in what, within how much memory all workers together run; the threads are each one's
    /// [default: the cores shared out].
    #[command(flatten)]
    pub machine: MachineArgs,
    /// The share of the units to keep, above 0 and at most 1 [default: 0.5].
    #[arg(long)]
    pub keep: Option<f64>,
    /// Train a sparse autoencoder on each of these layers of the teacher, from 0.
    #[arg(long, value_delimiter = ',', value_name = "LAYERS")]
    pub sae_layers: Option<Vec<u32>>,
    /// Go on without lines that are not prompts.
    #[arg(long)]
    pub skip_bad: bool,
    /// The prompts are plain text, one a line.
    #[arg(long)]
    pub text: bool,
    /// Send prompts to other machines although something in them looks like a secret.
    #[arg(long)]
    pub allow_secrets: bool,
    /// Only tell what would be computed, and how long that takes here.
    #[arg(long)]
    pub plan: bool,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// The values of `uspx up`, under the names that they have in the configuration.
#[derive(Args, Debug, Serialize)]
pub struct UpValues {
    /// The teacher: a mixture-of-experts model's folder.
    #[arg(long)]
    pub teacher: Option<PathBuf>,
    /// The base student: a dense model's folder. Without one, the loop stops at the mask.
    #[arg(long)]
    pub student: Option<PathBuf>,
    /// Your prompts, in one file that is split by itself.
    #[arg(long, conflicts_with_all = ["train", "validation", "gate"])]
    pub prompts: Option<PathBuf>,
    /// Instead of --prompts: those to learn from.
    #[arg(long, requires = "gate")]
    pub train: Option<PathBuf>,
    /// Those to choose by [default: the last twentieth of --train].
    #[arg(long, requires = "train")]
    pub validation: Option<PathBuf>,
    /// Those to hold out.
    #[arg(long, requires = "train")]
    pub gate: Option<PathBuf>,
    /// Where everything is put [default: uspx-up]. Started again with the same folder, it goes on.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// The object store: a folder or s3://bucket/prefix [default: a folder in --out].
    #[arg(long)]
    pub store: Option<String>,
    /// Over a NATS server, which other machines may join: `auto` starts one, a URL uses yours.
    #[arg(long, value_name = "auto|URL")]
    pub nats: Option<String>,
    /// A NATS credentials file, where your server asks for one.
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// The colony's names on your server, where several colonies share it [default: uspx].
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
}

impl UpArgs {
    /// Workers on this machine: one for a GPU.
    pub fn workers(&self) -> u16 {
        let alone = cores() == 1 || self.machine.device() != "cpu";
        self.workers.unwrap_or(if alone { 1 } else { 2 })
    }

    /// Threads of each worker.
    pub fn threads_per_worker(&self) -> usize {
        self.machine.threads.unwrap_or_else(|| shared_out(self.workers()))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The threads of each of so many workers: two on one core are far slower than one.
fn shared_out(workers: u16) -> usize {
    (cores() / usize::from(workers)).max(1)
}

/// Where a colony's NATS server is: flags of everything that connects.
#[derive(Args, Debug, Serialize)]
pub struct BusArgs {
    /// The NATS server.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// A NATS credentials file, where the server asks for one.
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// The colony's names on the server, where several colonies share it [default: uspx].
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
}

/// `uspx coordinator`: flags win over the environment (`USPX_…`), and that over the file. Their names
/// are the file's keys.
#[derive(Args, Debug, Serialize)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CoordinatorArgs {
    /// A word to a coordinator that runs.
    #[command(subcommand)]
    #[serde(skip)]
    pub word: Option<WordCommand>,
    /// The configuration (`uspx config init` writes one).
    #[arg(short, long)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The server.
    #[command(flatten)]
    #[serde(flatten)]
    pub bus: BusArgs,
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
    /// The prompts are plain text, one a line.
    #[arg(long)]
    pub text: bool,
    /// Go on without lines that are not prompts.
    #[arg(long)]
    pub skip_bad: bool,
    /// Send prompts to the workers although something in them looks like a secret.
    #[arg(long)]
    pub allow_secrets: bool,
    /// Stay when the campaign is over, and go on when prompts are added (uspx errbench add).
    #[arg(long)]
    pub stay: bool,
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
    /// Makes another student now, however few prompts are new since the last one.
    ///
    /// It is made although students are held or the day's machine time is spent; the hold and the limit
    /// stay in force for those after it.
    #[command(after_help = "Example: uspx coordinator build --state ./uspx-state")]
    Build(WordArgs),
    /// Makes no more students until `resume`; measuring goes on.
    ///
    /// What is out is finished, and a student that was judged is decided about. A campaign that has all
    /// else done waits, with --stay or without.
    #[command(after_help = "Example: uspx coordinator hold --state ./uspx-state")]
    Hold(WordArgs),
    /// Makes students again.
    #[command(after_help = "Example: uspx coordinator resume --state ./uspx-state")]
    Resume(WordArgs),
}

/// Whom it is said to.
#[derive(Args, Debug)]
pub struct WordArgs {
    /// The coordinator's state folder.
    #[arg(long)]
    pub state: PathBuf,
}

/// `uspx worker`: flags win over the environment (`USPX_…`), and that over the file. Their names are
/// the file's keys.
#[derive(Args, Debug, Serialize)]
pub struct WorkerArgs {
    /// The configuration.
    #[arg(short, long)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// This worker's name.
    #[arg(long)]
    pub name: Option<String>,
    /// The server.
    #[command(flatten)]
    #[serde(flatten)]
    pub bus: BusArgs,
    /// The object store.
    #[arg(long)]
    pub store: Option<String>,
    /// Model folders on this machine.
    #[arg(long, value_delimiter = ',')]
    pub models: Option<Vec<PathBuf>>,
    /// Where finished work is kept until it is taken, with room for a student
    /// [default: ~/.local/state/uspx/NAME].
    // The file's `state` is the coordinator's, and one file may serve both.
    #[arg(long)]
    #[serde(rename = "worker_state")]
    pub state: Option<PathBuf>,
    /// Where, in what, within how much memory.
    #[command(flatten)]
    #[serde(flatten)]
    pub machine: MachineArgs,
    /// End when standard input closes: a parent process that dies takes its workers along.
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub with_parent: bool,
}

/// `uspx status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The server to ask.
    #[command(flatten)]
    pub bus: BusArgs,
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

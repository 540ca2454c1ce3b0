//! The command line: every command, flag and example.

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use uspx_model::chat::{Bounds, OpenedReasoning};

/// Finds which parts of a large model matter for your own prompts, and makes a small 4-bit student of them.
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
    /// The level that `-v` asks for.
    pub fn log_level(&self) -> &'static str {
        match self.verbose {
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
    /// The coordinator of a colony over NATS.
    #[command(after_help = "Example: uspx coordinator -c uspx.toml --nats nats://box:4222 --store s3://bucket/uspx")]
    Coordinator(CoordinatorArgs),
    /// A worker of a colony over NATS.
    #[command(
        after_help = "Example: uspx worker --name spare-box --nats nats://box:4222 --store s3://bucket/uspx --models ./teacher,./student"
    )]
    Worker(WorkerArgs),
    /// Fetches and verifies the newest student.
    #[command(after_help = "Example: uspx pull s3://bucket/uspx")]
    Pull(PullArgs),
    /// Chats with the student that was pulled.
    #[command(after_help = "Example: uspx run \"List files by size\"")]
    Run(ChatArgs),
    /// The colony at a glance.
    #[command(after_help = "Example: uspx status --nats nats://box:4222 --watch")]
    Status(StatusArgs),
    /// Loss, divergence and speed of a model on prompts.
    #[command(after_help = "Example: uspx eval --model ./teacher --prompts mine.jsonl --mask mask.json")]
    Eval(EvalArgs),
    /// One probe on this machine, without a colony.
    #[command(subcommand)]
    Probe(ProbeCommand),
    /// Masks: build one here, without a colony.
    #[command(subcommand)]
    Mask(MaskCommand),
    /// The ledger: is it whole?
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Prints completions for a shell.
    #[command(after_help = "Example: uspx completions bash > ~/.local/share/bash-completion/completions/uspx")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// The number of threads asked for.
    pub fn threads(&self) -> Option<usize> {
        match self {
            Self::Eval(a) => a.common.run.threads,
            Self::Probe(p) => p.common().run.threads,
            Self::Mask(MaskCommand::Build(a)) => a.common.run.threads,
            Self::Demo(a) => Some(a.threads_per_worker()),
            Self::Worker(a) => a.threads,
            Self::Run(a) => a.run.threads,
            Self::Coordinator(_) | Self::Pull(_) | Self::Status(_) | Self::Ledger(_) | Self::Completions { .. } => None,
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

/// Flags of everything that runs a model.
#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    /// Where to run: cpu, cuda:0, metal.
    #[arg(long, default_value = "cpu", env = "USPX_DEVICE")]
    pub device: String,
    /// What to compute with: f32, or bf16 on a GPU [default: bf16 on CUDA where no gradient is asked for, else f32].
    #[arg(long, env = "USPX_DTYPE")]
    pub dtype: Option<Precision>,
    /// Threads for the mathematics [default: the physical cores].
    #[arg(long, env = "USPX_THREADS", value_parser = positive)]
    pub threads: Option<usize>,
    /// Tokens run together [default: as many as the memory takes, 4096 where that is enough].
    #[arg(long, value_parser = positive)]
    pub batch_tokens: Option<usize>,
    /// Memory to stay within, `4GiB` say [default: what is free]. It decides whether the model is streamed.
    #[arg(long, env = "USPX_MEMORY")]
    pub memory: Option<ByteSize>,
    /// Leave the weights in their file and read one layer at a time, whatever the memory.
    #[arg(long)]
    pub stream: bool,
    /// Bound on what a model that reasons writes before its answer; one that meets it has given no answer.
    #[arg(long, env = "USPX_MAX_REASONING_TOKENS", default_value_t = Bounds::REASONING)]
    pub max_reasoning_tokens: usize,
    /// What becomes of reasoning that the generation prompt opens, where a given answer is scored: an empty think block
    /// (closed), or none (open: the answer stands in the reasoning's place).
    #[arg(long, env = "USPX_REASONING", value_enum, default_value = "closed")]
    pub reasoning: Opened,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

impl RunArgs {
    /// Bounds on a reply whose answer has at most `answer` tokens.
    pub fn bounds(&self, answer: usize) -> Bounds {
        Bounds { answer, reasoning: self.max_reasoning_tokens }
    }
}

/// See [`OpenedReasoning`].
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum Opened {
    /// Closed empty.
    Closed,
    /// Left open.
    Open,
}

impl From<Opened> for OpenedReasoning {
    fn from(opened: Opened) -> Self {
        match opened {
            Opened::Closed => Self::Closed,
            Opened::Open => Self::Open,
        }
    }
}

/// A model and prompts.
#[derive(Args, Debug, Clone)]
pub struct ProbeArgs {
    /// The model's folder, or a GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// The prompts (JSON lines).
    #[arg(long)]
    pub prompts: PathBuf,
    /// Use the first N prompts only.
    #[arg(long, value_parser = positive)]
    pub limit: Option<usize>,
    /// Go on without lines that are no prompts.
    #[arg(long)]
    pub skip_bad: bool,
    /// Bound on answers that the model must give itself, where a prompt has no reference.
    #[arg(long, default_value_t = 128)]
    pub max_new_tokens: usize,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// `uspx eval`.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// Evaluate under this mask; KL is then measured against the model without it.
    #[arg(long)]
    pub mask: Option<PathBuf>,
    /// Measure KL against this model (of the same tokenizer).
    #[arg(long, conflicts_with = "mask")]
    pub against: Option<PathBuf>,
    /// Also decode answers greedily and count those equal to the reference.
    #[arg(long)]
    pub exact_match: bool,
}

/// `uspx probe …`.
#[derive(Subcommand, Debug)]
pub enum ProbeCommand {
    /// Routing and activation statistics of one forward pass.
    #[command(after_help = "Example: uspx probe trace --model ./teacher --prompts mine.jsonl --json")]
    Trace(TraceArgs),
    /// Effects of single units, exact or by gradient.
    #[command(
        after_help = "Example: uspx probe patch --model ./teacher --prompts mine.jsonl --units expert,head --method atp"
    )]
    Patch(PatchArgs),
    /// The loss under a mask.
    #[command(after_help = "Example: uspx probe ablate --model ./teacher --prompts mine.jsonl --mask mask.json")]
    Ablate(AblateArgs),
}

impl ProbeCommand {
    /// What all probes share.
    pub fn common(&self) -> &ProbeArgs {
        match self {
            Self::Trace(a) => &a.common,
            Self::Patch(a) => &a.common,
            Self::Ablate(a) => &a.common,
        }
    }
}

/// `uspx probe trace`.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// For benchmarks: the lines of --prompts are token ids, {"ids": [..], "response_start": n}.
    #[arg(long, hide = true)]
    pub tokenised: bool,
    /// For benchmarks: do it so many times.
    #[arg(long, hide = true, default_value_t = 1, value_parser = positive)]
    pub repeat: usize,
}

/// Kinds of unit on the command line.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Experts of a mixture.
    Expert,
    /// Attention heads.
    Head,
}

impl From<Kind> for uspx_domain::UnitKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Expert => Self::Expert,
            Kind::Head => Self::Head,
        }
    }
}

/// Ways to measure a unit's effect.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// One run per unit.
    Exact,
    /// Attribution patching.
    Atp,
}

/// What is computed with.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with the exponent of 32-bit ones; sums and norms in 32 bits.
    Bf16,
}

/// What replaces a unit.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaselineArg {
    /// Nothing.
    Zero,
    /// Its mean over the prompts.
    Mean,
}

/// `uspx probe patch`.
#[derive(Args, Debug)]
pub struct PatchArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// Which units.
    #[arg(long, value_delimiter = ',', default_value = "expert,head")]
    pub units: Vec<Kind>,
    /// How.
    #[arg(long, value_enum, default_value = "exact")]
    pub method: Method,
    /// What replaces a unit (exact: experts are banned and their tokens re-routed, heads zeroed) [default: zero for
    /// exact, mean for atp].
    #[arg(long, value_enum)]
    pub baseline: Option<BaselineArg>,
    /// Only these layers, as A..B (B not included).
    #[arg(long)]
    pub layers: Option<String>,
}

/// `uspx probe ablate`.
#[derive(Args, Debug)]
pub struct AblateArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// The mask.
    #[arg(long)]
    pub mask: PathBuf,
}

/// `uspx mask …`.
#[derive(Subcommand, Debug)]
pub enum MaskCommand {
    /// Scores the units on your prompts and keeps the best.
    #[command(
        after_help = "Example: uspx mask build --model ./teacher --prompts mine.jsonl --units expert --keep 0.5 --out mask.json"
    )]
    Build(MaskBuildArgs),
}

/// Ways to score units for a mask.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreMethod {
    /// Change of loss when the unit is cut (the default: measured best).
    Exact,
    /// EASY-EP (experts).
    EasyEp,
    /// Sum of gate times output norm (experts).
    Saliency,
    /// REAP: the same per routed token (experts).
    Reap,
    /// How often it is routed to (experts).
    Frequency,
    /// Attribution patching, made positive per token.
    Atp,
    /// Output norm (heads).
    Norm,
}

/// How a budget is spread over layers.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The best of the whole model, with a floor of the router's top-k per layer.
    Global,
    /// As many in every layer.
    Uniform,
}

/// `uspx mask build`.
#[derive(Args, Debug)]
pub struct MaskBuildArgs {
    /// Model and prompts.
    #[command(flatten)]
    pub common: ProbeArgs,
    /// Which units.
    #[arg(long, value_enum, default_value = "expert")]
    pub units: Kind,
    /// The share to keep, above 0 and at most 1.
    #[arg(long)]
    pub keep: f64,
    /// How to score them.
    #[arg(long, value_enum, default_value = "exact")]
    pub method: ScoreMethod,
    /// How to spread the budget over layers.
    #[arg(long, value_enum, default_value = "global")]
    pub spread: Spread,
    /// Where to write the mask.
    #[arg(long)]
    pub out: PathBuf,
}

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
pub struct CoordinatorArgs {
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

/// `uspx pull`.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// The store [default: the one pulled from last].
    pub store: Option<String>,
    /// Which release [default: the newest].
    #[arg(long)]
    pub release: Option<u64>,
    /// Where students are kept.
    #[arg(long, env = "USPX_STUDENTS")]
    pub into: Option<PathBuf>,
    /// Read a release that is here already through, and mend it.
    #[arg(long)]
    pub repair: bool,
    /// Print one JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Which of a release's formats to run.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudentFormat {
    /// The GGUF file.
    Gguf,
    /// The GPTQ folder.
    Gptq,
}

/// What answers in `uspx run`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// An installed llama.cpp where it is the quicker one, else our own.
    Auto,
    /// Our own.
    Own,
    /// llama.cpp's llama-server, on PATH or where USPX_LLAMA_CPP points.
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

/// `uspx run`.
#[derive(Args, Debug)]
pub struct ChatArgs {
    /// Ask this and end; without it, chat line by line.
    pub prompt: Option<String>,
    /// Where students are kept.
    #[arg(long, env = "USPX_STUDENTS")]
    pub from: Option<PathBuf>,
    /// Run this model instead: a folder or a GGUF file.
    #[arg(long, conflicts_with = "from")]
    pub model: Option<PathBuf>,
    /// Which of the release's formats.
    #[arg(long, value_enum, default_value = "gguf")]
    pub format: StudentFormat,
    /// What is to answer.
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: Engine,
    /// A system message.
    #[arg(long)]
    pub system: Option<String>,
    /// 0 is greedy; above it, answers are drawn.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f64,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Bound on an answer.
    #[arg(long, default_value_t = 256)]
    pub max_new_tokens: usize,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
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

/// `uspx ledger`.
#[derive(Subcommand, Debug)]
pub enum LedgerCommand {
    /// Reads the ledger through: how many records, how far synced, whether whole. Changes nothing, and may run beside a
    /// coordinator.
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

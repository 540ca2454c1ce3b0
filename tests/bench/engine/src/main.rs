//! Measures the engine as a user has it: the `uspx` binary against transformers and llama.cpp, on
//! the same files, tokens and threads. `make bench-engine` builds what is needed and runs all of
//! it.

mod bench;
mod disk;
mod figures;

use bench::Bench;
use clap::{Args, Parser, Subcommand};
use figures::Group;
use std::path::PathBuf;
use std::process::ExitCode;
use uspx_bench_engine::place::Place;
use uspx_bench_engine::{checkpoint, error, figure, program};

/// Measures the engine.
#[derive(Parser, Debug)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Writes a checkpoint of gpt-oss-20b's shapes (13.8 GB) with random weights.
    #[command(name = "write-20b")]
    Write {
        /// Where to; made if it is not there.
        folder: PathBuf,
        #[command(flatten)]
        shape: checkpoint::GptOss,
        /// Seed of the weights.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Measures, and prints a table and one JSON object.
    Run(RunArgs),
    /// Measures exact patching alone.
    Exact(PlaceArgs),
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Only these figures [default: all but exact].
    #[arg(long, value_delimiter = ',')]
    only: Vec<Group>,
    #[command(flatten)]
    places: PlaceArgs,
}

#[derive(Args, Debug)]
struct PlaceArgs {
    /// Where models are made and logs kept (15 GB for all figures) [default: target/bench-engine].
    #[arg(long)]
    work: Option<PathBuf>,
    /// The binary under test [default: target/release/uspx].
    #[arg(long, env = "USPX_BIN")]
    uspx: Option<PathBuf>,
    /// Threads of every engine.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How often two engines alternate; medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Less of everything, once: to see whether it runs.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(pass) => ExitCode::from(u8::from(!pass)),
        Err(error) => {
            eprintln!("bench-engine: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every figure holds.
fn run(command: Command) -> error::Result<bool> {
    match command {
        Command::Write { folder, shape, seed } => {
            let bytes = checkpoint::write(&folder, &shape, seed)?;
            println!("{}", serde_json::json!({"folder": folder, "bytes": bytes}));
            Ok(true)
        }
        Command::Run(args) => {
            let groups = if args.only.is_empty() { Group::ALL } else { &args.only };
            measure(&args.places, groups)
        }
        Command::Exact(args) => measure(&args, &[Group::Exact]),
    }
}

fn measure(args: &PlaceArgs, groups: &[Group]) -> error::Result<bool> {
    let report = figures::measure(&places(args)?, groups);
    report.print();
    Ok(report.pass())
}

fn places(args: &PlaceArgs) -> error::Result<Bench> {
    let Place { root, work, uspx } =
        Place::of("bench-engine", args.work.as_deref(), args.uspx.as_deref())?;
    let rounds = if args.quick { 1 } else { args.rounds.max(1) };
    Ok(Bench { root, work, uspx, threads: args.threads.max(1), rounds, quick: args.quick })
}

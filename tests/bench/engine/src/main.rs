//! Measures the engine as a user has it: the `uspx` binary against transformers and llama.cpp, on the same files, tokens
//! and threads. `make bench-engine` builds what is needed and runs all of it.

#![allow(dead_code)]
mod checkpoint;
mod error;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

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
        shape: checkpoint::Shape,
        /// Seed of the weights.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
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

fn run(command: Command) -> error::Result<bool> {
    match command {
        Command::Write { folder, shape, seed } => {
            let bytes = checkpoint::write(&folder, &shape, seed)?;
            println!("{}", serde_json::json!({"folder": folder, "bytes": bytes}));
            Ok(true)
        }
    }
}

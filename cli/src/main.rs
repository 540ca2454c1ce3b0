//! The `uspx` command: one binary for operator, worker and student's user. Thin: it reads
//! arguments, shows progress and prints results; the work is done by the crates beside it.

mod args;
mod assets;
mod colony;
mod commands;
mod connect;
mod draft;
mod error;
mod figures;
mod grid;
mod left_out;
mod mask_file;
mod measured;
mod models;
mod output;
mod progress;
mod prompts;
mod rows;
mod saes;
mod scored;
mod scores;
mod secrets;
mod settings;
mod splits;
mod state;
mod student;

use args::Cli;
use clap::Parser;
use error::CliError;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Known before the command line is: what is wrong with that is an error like others.
    let json = std::env::args_os().any(|arg| arg == "--json");
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if json && error.use_stderr() => return CliError::of_usage(&error).report(json),
        Err(error) => error.exit(),
    };
    set_threads(cli.command.threads());
    uspx_runtime::telemetry::start(cli.log_level(), false);
    uspx_runtime::panics::hide_words();
    // async-nats brings ring, object_store would bring another provider: with two, the first TLS
    // connection panics.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    error::plain_lines_without_a_terminal();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(json),
    }
}

/// candle and rayon read their numbers of threads from the environment, once. Without the second
/// variable candle spins as many threads as there are cores whatever rayon was told, and two
/// workers in one process block each other there.
fn set_threads(threads: Option<usize>) {
    let Some(threads) = threads else { return };
    for variable in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        // SAFETY: nothing else runs yet: this is the only thread, before the runtime and before
        // rayon's pool.
        unsafe { std::env::set_var(variable, threads.to_string()) };
    }
}

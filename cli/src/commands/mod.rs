//! The commands, one file each.

mod config;
mod coordinator;
mod demo;
mod distill;
mod eval;
mod export;
mod ledger;
mod mask;
mod probe;
mod pull;
mod run;
mod status;
mod store;
mod up;
pub mod worker;

use crate::args::{Cli, Command, MaskCommand, StoreCommand};
use crate::error::{CliError, Exit, Result};
use clap::CommandFactory;
use uspx_runtime::Shutdown;

/// Runs the command.
pub fn run(cli: Cli) -> Result<()> {
    let failed = |e: std::io::Error| CliError::new(Exit::Failed, format!("cannot start: {e}"));
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    // Signals are heard by the runtime's threads, while this thread computes or waits.
    let shutdown = runtime.block_on(async { Shutdown::on_signals() }).map_err(failed)?;
    match cli.command {
        Command::Eval(args) => eval::run(&args, &shutdown),
        Command::Probe(command) => probe::run(&command, &shutdown),
        Command::Mask(MaskCommand::Build(args)) => mask::build(&args, &shutdown),
        Command::Config(command) => config::run(&command),
        Command::Mask(MaskCommand::Show(args)) => mask::show(&args),
        Command::Mask(MaskCommand::Export(args)) => mask::export(&args, &shutdown),
        Command::Distill(args) => distill::run(&args, &shutdown),
        Command::Export(args) => export::run(&args, &shutdown),
        Command::Ledger(command) => ledger::run(&command),
        Command::Store(StoreCommand::Collect(args)) => {
            runtime.block_on(store::collect(&args, &shutdown))
        }
        Command::Demo(args) => demo::run(&args, &runtime, &shutdown),
        Command::Up(args) => up::run(&args, &runtime, &shutdown),
        Command::Coordinator(args) => runtime.block_on(coordinator::run(&args, &shutdown)),
        Command::Worker(args) => runtime.block_on(worker::run(&args, &shutdown)),
        Command::Pull(args) => runtime.block_on(pull::run(&args, &shutdown)),
        Command::Run(args) => run::run(&args, &shutdown),
        Command::Status(args) => runtime.block_on(status::run(&args, &shutdown)),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "uspx", &mut std::io::stdout());
            Ok(())
        }
    }
}

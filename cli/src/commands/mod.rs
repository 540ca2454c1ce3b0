//! The commands, one file each.

mod config;
mod coordinator;
mod demo;
mod distill;
mod errbench;
mod eval;
mod export;
mod ledger;
mod mask;
mod probe;
mod pull;
mod run;
mod status;
mod store;
mod student;
mod up;
pub mod worker;

use crate::args::{Cli, Command, MaskCommand, StoreCommand};
use crate::error::{CliError, Exit, Result};
use crate::output;
use clap::CommandFactory;
use uspx_colony::Dice;
use uspx_domain::Prompt;
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
        Command::Mask(MaskCommand::Why(args)) => mask::why(&args),
        Command::Mask(MaskCommand::Diff(args)) => mask::diff(&args),
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
        Command::Errbench(command) => runtime.block_on(errbench::run(&command)),
        Command::Pull(args) => runtime.block_on(pull::run(&args, &shutdown)),
        Command::Student(command) => runtime.block_on(student::run(&command, &shutdown)),
        Command::Run(args) => run::run(&args, &shutdown),
        Command::Status(args) => runtime.block_on(status::run(&args, &shutdown)),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "uspx", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// Where no file of them is named, one in so many prompts is held out to stop or to judge by.
const HELD_OUT: usize = 10;

/// Takes one in `of` drawn prompts out, and says what they are kept for.
fn held_out(prompts: &mut Vec<Prompt>, of: usize, seed: u64, why: &str) -> Vec<Prompt> {
    Dice::new(seed, "validation", 0).shuffle(prompts);
    let held = (prompts.len() / of).max(1);
    let taken = prompts.split_off(prompts.len().saturating_sub(held));
    let all = taken.len() + prompts.len();
    output::remark_paragraph(&format!("{} of {all} prompts are kept {why}", taken.len()));
    taken
}

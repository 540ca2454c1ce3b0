//! `uspx student`: the releases of a store. `list` and `diff` only read; `rollback` changes which one
//! is in use here. `published` reads what a release says of itself, `refused` what the coordinator
//! wrote of students that became none.

mod diff;
mod list;
mod published;
mod refused;
mod rollback;

use crate::args::StudentCommand;
use crate::error::{CliError, Exit, Result};
use uspx_runtime::Shutdown;

/// Runs the command.
pub async fn run(command: &StudentCommand, shutdown: &Shutdown) -> Result<()> {
    match command {
        StudentCommand::List(args) => or_stopped(list::run(args), shutdown).await,
        StudentCommand::Diff(args) => or_stopped(diff::run(args), shutdown).await,
        StudentCommand::Rollback(args) => rollback::run(args, shutdown).await,
    }
}

/// What only reads may be broken off anywhere.
async fn or_stopped(work: impl Future<Output = Result<()>>, shutdown: &Shutdown) -> Result<()> {
    tokio::select! {
        done = work => done,
        () = shutdown.cancelled() => Err(CliError::new(Exit::Interrupted, "stopped")),
    }
}

//! `uspx errbench`: the person's prompts.

use crate::args::{ErrbenchAddArgs, ErrbenchCommand};
use crate::error::{CliError, Exit, Result};
use crate::prompts::PromptSource;
use crate::{output, secrets};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use uspx_coordinator::errbench;
use uspx_coordinator::ledger::FILE_NAME;

/// How long a coordinator that runs may take to take them.
const WITHIN: Duration = Duration::from_secs(5);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// What `--json` prints.
#[derive(Serialize)]
struct Added {
    /// Prompts of the file.
    prompts: usize,
    /// Whether a coordinator has taken them.
    taken: bool,
}

/// Runs the command.
pub async fn run(command: &ErrbenchCommand) -> Result<()> {
    match command {
        ErrbenchCommand::Add(args) => add(args).await,
    }
}

async fn add(args: &ErrbenchAddArgs) -> Result<()> {
    is_colony(&args.state)?;
    let file = PromptSource::new(&args.file, args.text, args.skip_bad).read()?;
    secrets::check(&[&file], args.allow_secrets)?;
    if file.prompts.is_empty() {
        let message = format!("{} holds no prompt", args.file.display());
        return Err(CliError::new(Exit::BadInput, message));
    }
    let left = errbench::add(&args.state, &file.prompts)?;
    let end = tokio::time::Instant::now() + WITHIN;
    while errbench::is_waiting(&left) && tokio::time::Instant::now() < end {
        tokio::time::sleep(PAUSE).await;
    }
    let (prompts, taken) = (file.prompts.len(), !errbench::is_waiting(&left));
    if args.json {
        return output::json(&Added { prompts, taken });
    }
    output::line(&match taken {
        true => format!("the coordinator has taken {prompts} prompts"),
        false => {
            format!("{prompts} prompts wait for the coordinator: it takes them at its next start")
        }
    })
}

/// Prompts that nobody would ever read are refused.
fn is_colony(state: &Path) -> Result<()> {
    if state.join(FILE_NAME).exists() {
        return Ok(());
    }
    let message = format!("{} is no coordinator's state folder", state.display());
    Err(CliError::new(Exit::NotFound, message).help(
        "name the state folder of a coordinator that was started on this machine: --state DIR \
         (of uspx up, the folder colony in its --out)",
    ))
}

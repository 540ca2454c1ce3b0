//! `uspx errbench`: the person's prompts.

use crate::args::{ErrbenchAddArgs, ErrbenchCommand};
use crate::error::{CliError, Exit, Result};
use crate::prompts::PromptSource;
use crate::{colony, output, secrets};
use serde::Serialize;
use std::time::Duration;
use uspx_coordinator::errbench;

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
    // Prompts that nobody would ever read are refused.
    colony::check(&args.state)?;
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

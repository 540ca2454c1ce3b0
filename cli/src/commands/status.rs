//! `uspx status`: the colony at a glance, from the bus or from the coordinator's state folder.
//!
//! `source` reads it and finds out whether the coordinator lives, `page` prints it.

mod page;
mod source;

use crate::args::StatusArgs;
use crate::error::Result;
use crate::output;
use serde::Serialize;
use source::{Picture, Source};
use std::io::IsTerminal;
use std::time::Duration;
use uspx_runtime::Shutdown;
use uspx_wire::StatusMessage;

/// How often it is shown again.
const AGAIN: Duration = Duration::from_secs(2);
/// Clears a terminal, and goes to its upper left.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    status: &'a StatusMessage,
    coordinator: Coordinator,
}

#[derive(Serialize)]
struct Coordinator {
    /// None where that cannot be told from here.
    alive: Option<bool>,
    picture_age_millis: u64,
}

/// `uspx status`.
pub async fn run(args: &StatusArgs, shutdown: &Shutdown) -> Result<()> {
    let source = Source::of(args).await?;
    loop {
        let picture = source.look().await?;
        if args.watch && !args.json && std::io::stdout().is_terminal() {
            output::piece(CLEAR)?;
        }
        show(&picture, args.json)?;
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

fn show(picture: &Picture, json: bool) -> Result<()> {
    if !json {
        return output::line(&page::table(picture).to_string());
    }
    let coordinator = Coordinator {
        alive: picture.life.is_alive(),
        picture_age_millis: picture.age.as_millis() as u64,
    };
    output::json(&Report { status: &picture.status, coordinator })
}

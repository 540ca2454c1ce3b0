//! `uspx ledger export` and `uspx ledger import`: a coordinator's state, moved as one file.

use super::missing;
use crate::args::{LedgerExportArgs, LedgerImportArgs};
use crate::error::{CliError, Result};
use crate::output;
use serde::Serialize;
use std::path::Path;
use uspx_coordinator::ServiceError;
use uspx_coordinator::ledger::moving::{Moved, export as write, import as read};

/// What follows for the machine that a ledger was exported on.
const OLD_HOST: &str = "do not start a coordinator on this state folder again: two that go on from one ledger would \
                        both issue its tasks";

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    state_folder: &'a Path,
    #[serde(flatten)]
    moved: &'a Moved,
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<&'a str>,
}

/// `uspx ledger export`.
pub fn export(args: &LedgerExportArgs) -> Result<()> {
    let moved = write(&args.state, &args.file).map_err(|error| match error {
        ServiceError::File { path, source } if path == args.file => CliError::file(&path, &source)
            .help("name a file that is not there yet, in a folder that is"),
        error => missing(error),
    })?;
    show(&args.file, &args.state, &moved, Some(OLD_HOST), args.json)
}

/// `uspx ledger import`.
pub fn import(args: &LedgerImportArgs) -> Result<()> {
    let moved = read(&args.file, &args.state).map_err(|error| match error {
        ServiceError::File { path, source } => CliError::file(&path, &source),
        other => other.into(),
    })?;
    show(&args.file, &args.state, &moved, None, args.json)
}

fn show(file: &Path, state: &Path, moved: &Moved, remark: Option<&str>, json: bool) -> Result<()> {
    if json {
        return output::json(&Report { file, state_folder: state, moved, remark });
    }
    let mut table = output::table(&["state folder", &state.display().to_string()]);
    table.add_row(["file", &file.display().to_string()]);
    table.add_row(["records", &moved.records.to_string()]);
    for part in &moved.files {
        table.add_row([
            part.name.as_str(),
            &format!("{} bytes, BLAKE3 {}", part.bytes, part.blake3),
        ]);
    }
    table.add_row(["state", &moved.state.to_string()]);
    output::line(&table.to_string())?;
    remark.map_or(Ok(()), output::line)
}

//! Results: one JSON document on stdout, or text for a person.

use crate::error::{CliError, Exit, Result};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::Write;

/// Prints a JSON document.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| CliError::new(Exit::Failed, e))?;
    line(&text)
}

/// Prints a line on stdout. A closed pipe (`| head`) is no error.
pub fn line(text: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::new(Exit::Failed, error)),
        _ => Ok(()),
    }
}

/// An empty table with these headings.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(headings.iter().copied());
    table
}

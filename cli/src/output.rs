//! Results: one JSON document on stdout, or text for a person; remarks on stderr.

use crate::error::{CliError, Exit, Result};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::Write;

/// Prints a JSON document.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| CliError::new(Exit::Failed, e))?;
    line(&text)
}

/// Prints a line on stdout. A closed pipe (`| head`) is not an error.
pub fn line(text: &str) -> Result<()> {
    piece(&format!("{text}\n")).map(drop)
}

/// Prints a part of a line on stdout at once. `false` where the pipe is closed, so that nobody
/// reads any more.
pub fn piece(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(CliError::new(Exit::Failed, format!("cannot write to standard output: {error}")))
        }
    }
}

/// Prints a line on stderr. Where that is closed there is nobody to tell: unlike `eprintln!`, it
/// does not panic.
pub fn note(text: &str) {
    remark(&format!("{text}\n"));
}

/// Prints a part of a line on stderr at once.
pub fn remark(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// An empty table with these headings.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(headings.iter().copied());
    table
}

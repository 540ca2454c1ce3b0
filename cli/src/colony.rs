//! A coordinator's state folder on this machine, as commands beside it name it.

use crate::error::{CliError, Exit, Result};
use std::path::Path;
use uspx_coordinator::ledger::FILE_NAME;

/// Refuses a folder that no coordinator ever kept its ledger in.
///
/// # Errors
/// It is none.
pub fn check(state: &Path) -> Result<()> {
    if state.join(FILE_NAME).exists() {
        return Ok(());
    }
    let message = format!("{} is no coordinator's state folder", state.display());
    Err(CliError::new(Exit::NotFound, message).help(
        "name the state folder of a coordinator that was started on this machine: --state DIR \
         (of uspx up, the folder colony in its --out)",
    ))
}

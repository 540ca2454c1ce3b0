//! What coordinator and worker are started with: a file, the environment, flags; later ones win.
//!
//! [`table`] has every key. [`load`] refuses keys that are none and names all that are missing at
//! once; `file` writes a file to begin with, `explain` says what a role would use and where it comes
//! from.

mod coordinator;
mod explain;
mod file;
mod missing;
pub mod table;
mod unknown;
mod worker;

pub use coordinator::{CoordinatorFile, home};
pub use explain::{Explained, explain};
pub use file::commented;
pub use worker::WorkerFile;

use crate::error::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use table::Role;
use uspx_runtime::config::Sources;

/// A role's settings. `flags` are those of its command.
///
/// # Errors
/// Keys that nobody knows, keys that are missing, values that do not fit.
pub fn load<T: DeserializeOwned>(
    role: Role,
    file: Option<&Path>,
    flags: impl Serialize,
) -> Result<T> {
    let sources = sources(file, flags)?;
    missing::refuse(role, &sources)?;
    Ok(sources.settings()?)
}

/// What was given, wherever; names that nobody knows are refused, or warned about.
///
/// # Errors
/// A file that is not there or not TOML, and keys that nobody knows.
pub fn sources(file: Option<&Path>, flags: impl Serialize) -> Result<Sources> {
    let sources = Sources::read(file, flags)?;
    unknown::refuse(&sources.keys_of_file()?)?;
    unknown::warn(unknown::variables());
    Ok(sources)
}

#[cfg(test)]
mod tests;

//! Students that the gate refused. The coordinator leaves a report of every campaign that ended, in
//! `reports/EPOCH` of its state folder; this reads those that tell of a refusal.

use super::published::{Report, Worth};
use crate::error::{CliError, Exit, Result};
use serde::Serialize;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// One of them.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// The last epoch of its campaign.
    pub epoch: u32,
    /// The gate's words.
    pub reason: String,
    #[serde(flatten)]
    pub worth: Worth,
    /// All of it.
    pub report: PathBuf,
}

/// Those of a state folder, oldest first.
///
/// # Errors
/// No such folder; a report that cannot be read.
pub fn of(state: &Path) -> Result<Vec<Refused>> {
    fs::read_dir(state).map_err(|e| CliError::file(state, &e))?;
    let root = state.join("reports");
    let entries = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CliError::file(&root, &error)),
    };
    let mut refused = Vec::new();
    for entry in entries {
        let folder = entry.map_err(|e| CliError::file(&root, &e))?;
        let epoch = folder.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(epoch) = epoch {
            refused.extend(one(epoch, folder.path().join("report.json"))?);
        }
    }
    refused.sort_by_key(|one| one.epoch);
    Ok(refused)
}

/// None where the campaign ended otherwise, or its report is not written yet.
fn one(epoch: u32, path: PathBuf) -> Result<Option<Refused>> {
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CliError::file(&path, &error)),
    };
    let report: Report = serde_json::from_slice(&bytes).map_err(|error| {
        CliError::new(Exit::BadInput, format!("{} cannot be read: {error}", path.display()))
            .help("move it elsewhere, or leave out --state")
    })?;
    let gate = report.figures.as_ref().and_then(|figures| figures.gate.as_ref());
    let reason = gate.and_then(|gate| gate.refusal.clone());
    Ok(reason.map(|reason| Refused { epoch, reason, worth: report.worth(), report: path }))
}

//! Versions of a colony's mask, from its ledger. It is only read, beside a running coordinator too.

use crate::colony;
use crate::error::{CliError, Exit, Result};
use std::path::Path;
use uspx_colony::diff::Versions;
use uspx_colony::{MaskVersion, State};
use uspx_coordinator::ledger::{FILE_NAME, survey};

/// These versions of the mask of the coordinator whose state folder this is, and the latest.
pub(super) fn replay(wanted: &[u32], folder: &Path) -> Result<Versions> {
    let mut versions = Versions::of(wanted.iter().copied());
    colony::check(folder)?;
    survey(&folder.join(FILE_NAME), |record| versions.note(&record))?;
    Ok(versions)
}

/// What was known when a version was drawn, with it; of the latest, what is known now.
pub(super) fn find(versions: &Versions, number: Option<u32>) -> Result<(&State, &MaskVersion)> {
    let state = match number {
        Some(number) => versions.state(number),
        None => Some(versions.latest()),
    };
    let found = state.and_then(|state| Some((state, state.mask()?)));
    found.ok_or_else(|| unknown(number, versions))
}

fn unknown(number: Option<u32>, versions: &Versions) -> CliError {
    let (Some(last), Some(number)) = (versions.last(), number) else {
        return CliError::new(Exit::NotFound, "the colony has drawn no mask yet");
    };
    let what = format!("the colony's mask has no version {number}: it has 1 to {last}");
    let help = format!("name a version, or a mask's file: ./{number}");
    CliError::new(Exit::NotFound, what).help(help)
}

//! `uspx student rollback`: from the folder where it has the release whole, else from the store.

use crate::args::StudentRollbackArgs;
use crate::commands::pull::{show, source, students, watched};
use crate::error::{CliError, Result};
use std::path::Path;
use uspx_artifact::{ArtifactError, PullReport, Store, rollback, rollback_here};
use uspx_runtime::Shutdown;

/// `uspx student rollback`.
pub async fn run(args: &StudentRollbackArgs, shutdown: &Shutdown) -> Result<()> {
    let dest = students(args.into.as_deref())?;
    let report = match rollback_here(&dest, args.to) {
        Ok(report) => report,
        Err(error @ ArtifactError::NotWhole { .. }) => {
            let fetched = fetched(args, &dest, shutdown).await;
            fetched.map_err(|failed| help(failed, &error))?
        }
        Err(error) => return Err(error.into()),
    };
    show(&report, args.json)
}

async fn fetched(
    args: &StudentRollbackArgs,
    dest: &Path,
    shutdown: &Shutdown,
) -> Result<PullReport> {
    let store = Store::open(&source(args.store.as_deref(), dest)?)?;
    watched(async |tell| rollback(&store, dest, args.to, tell).await, shutdown).await
}

/// Why the store was asked at all, and what there is to do.
fn help(failed: CliError, missing: &ArtifactError) -> CliError {
    failed.help(format!(
        "{missing}; so it has to come from a store: uspx student rollback STORE-URL. The release in \
         use is as it was; uspx student list tells which others are here"
    ))
}

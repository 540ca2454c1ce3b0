//! `uspx store collect`: blobs that no record and no release names are deleted.

use crate::args::StoreCollectArgs;
use crate::error::{CliError, Exit, Result};
use crate::output;
use bytesize::ByteSize;
use serde::Serialize;
use uspx_artifact::Store;
use uspx_coordinator::ServiceError;
use uspx_coordinator::collect::{Collect, Collected, Count, collect as delete};
use uspx_runtime::Shutdown;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    store: &'a str,
    dry_run: bool,
    #[serde(flatten)]
    found: Collected,
}

/// `uspx store collect`.
pub async fn collect(args: &StoreCollectArgs, shutdown: &Shutdown) -> Result<()> {
    let store = Store::open(&args.store)?;
    let how =
        Collect { states: args.state.clone(), older_than: args.older_than, dry_run: args.dry_run };
    let found = tokio::select! {
        found = delete(&store, &how) => found.map_err(told)?,
        () = shutdown.cancelled() => {
            return Err(CliError::new(Exit::Interrupted, "stopped; what is named is all there"));
        }
    };
    if args.json {
        return output::json(&Report { store: &args.store, dry_run: args.dry_run, found });
    }
    show(args, &found)
}

fn told(error: ServiceError) -> CliError {
    match error {
        ServiceError::File { path, source } => CliError::file(&path, &source).help(
            "name the state folder (--state) of every coordinator of this store: --state DIR",
        ),
        error @ ServiceError::Artifact(_) => CliError::from(error)
            .help("nothing is deleted that a release may need: mend this first"),
        other => other.into(),
    }
}

fn show(args: &StoreCollectArgs, found: &Collected) -> Result<()> {
    let mut table = output::table(&["store", &args.store]);
    let deleted = if args.dry_run { "would be deleted" } else { "deleted" };
    let rows = [
        ("kept: the ledger names them", found.in_ledger),
        ("kept: a release names them", found.in_releases),
        ("kept: they are young", found.young),
        (deleted, found.deleted),
    ];
    for (what, Count { blobs, bytes }) in rows {
        table.add_row([what, &format!("{blobs} blobs, {}", ByteSize(bytes))]);
    }
    output::line(&table.to_string())
}

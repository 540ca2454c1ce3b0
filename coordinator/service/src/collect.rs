//! Blobs that nothing names any more are deleted from the store.
//!
//! Kept is what any record of the ledgers names, what any release's manifest names, and what is
//! younger than a bound: an upload under way, a large task or answer on the bus, the state of a
//! training. The ledgers are
//! held meanwhile, so no answer is accepted whose blob is being deleted; an answer that comes later
//! without its blob is not taken (`intake`), and its task is done again.

use crate::ServiceError;
use crate::ledger::{FILE_NAME, Held, hold, survey};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use uspx_artifact::{Store, StoredBlob};
use uspx_colony::Record;
use uspx_domain::{BlobRef, Digest};

/// What to delete.
#[derive(Debug, Clone)]
pub struct Collect {
    /// The state folder of every coordinator that worked with the store.
    pub states: Vec<PathBuf>,
    /// What is younger is kept.
    pub older_than: Duration,
    /// Only tell.
    pub dry_run: bool,
}

/// Blobs, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, blob: &BlobRef) {
        self.blobs += 1;
        self.bytes += blob.bytes;
    }
}

/// What became of the store's blobs; each is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Kept: a record of a ledger names them.
    pub in_ledger: Count,
    /// Kept: a release names them.
    pub in_releases: Count,
    /// Kept: named by nothing, but young.
    pub young: Count,
    /// Deleted, or in a dry run to be.
    pub deleted: Count,
}

/// Deletes what nothing names.
///
/// # Errors
/// A coordinator holds a ledger (not in a dry run); a ledger is missing or damaged; the ledgers name
/// nothing in this store; a manifest cannot be read; the store fails. Of all but the last nothing
/// was deleted.
pub async fn collect(store: &Store, how: &Collect) -> Result<Collected, ServiceError> {
    let _held = if how.dry_run { Vec::new() } else { held(&how.states)? };
    let in_ledger = named(&how.states)?;
    // Listed before the releases are read: a blob that is published meanwhile is young or named.
    let stored = store.stored_blobs().await?;
    let in_releases = store.released_blobs().await?;
    let bound = SystemTime::now().checked_sub(how.older_than).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut found = Collected::default();
    let mut old = Vec::new();
    for stored in &stored {
        let blob = &stored.blob;
        match () {
            () if in_ledger.contains(&blob.digest) => found.in_ledger.add(blob),
            () if in_releases.contains(&blob.digest) => found.in_releases.add(blob),
            () if stored.modified > bound => found.young.add(blob),
            () => old.push(*stored),
        }
    }
    if !old.is_empty() && found.in_ledger.blobs == 0 {
        let (store, blobs) = (store.url().to_owned(), stored.len());
        return Err(ServiceError::Stranger { store, blobs });
    }
    delete(store, &old, how.dry_run, &mut found).await?;
    if !how.dry_run {
        store.drop_states_before(bound).await?;
    }
    Ok(found)
}

async fn delete(
    store: &Store,
    old: &[StoredBlob],
    dry_run: bool,
    found: &mut Collected,
) -> Result<(), ServiceError> {
    for stored in old {
        if dry_run || store.delete_listed(stored).await? {
            found.deleted.add(&stored.blob);
        } else {
            found.young.add(&stored.blob);
        }
    }
    Ok(())
}

fn held(states: &[PathBuf]) -> Result<Vec<Held>, ServiceError> {
    states.iter().map(|state| hold(&state.join(FILE_NAME))).collect()
}

/// What the records of the ledgers name.
fn named(states: &[PathBuf]) -> Result<BTreeSet<Digest>, ServiceError> {
    let mut named = BTreeSet::new();
    for state in states {
        survey(&state.join(FILE_NAME), |record| {
            named.extend(blobs(&record).iter().map(|blob| blob.digest));
        })?;
    }
    Ok(named)
}

/// The blobs that a record names; a snapshot those that are still needed of what the records named
/// that it stands for. A new kind of record does not compile before it is thought of here.
pub fn blobs(record: &Record) -> Vec<BlobRef> {
    match record {
        Record::EpochOpened { tasks, .. } => {
            tasks.iter().flat_map(|task| task.work.blobs()).collect()
        }
        Record::Accepted { answer } | Record::Disputed { answer } => answer.outcome.blobs(),
        Record::Gated { release, .. } => release.iter().flat_map(|order| order.blobs()).collect(),
        Record::Snapshot(snapshot) => snapshot.state.blobs(),
        Record::Founded(_)
        | Record::Continued(_)
        | Record::Amended(_)
        | Record::Issued { .. }
        | Record::Compared { .. }
        | Record::Settled { .. }
        | Record::Lost { .. }
        | Record::GivenUp { .. }
        | Record::EpochClosed { .. }
        | Record::Quarantined { .. }
        | Record::Retracted { .. }
        | Record::StudentAsked
        | Record::Held
        | Record::Resumed
        | Record::Day { .. }
        | Record::Published { .. }
        | Record::Ended { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests;

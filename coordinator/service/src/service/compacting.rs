//! The ledger is begun anew with a snapshot where it has grown long, by the coordinator that holds
//! it, between two batches of answers.

use super::Coordinator;
use crate::ServiceError;
use uspx_colony::{Record, Snapshot, SnapshotError};

/// Whether a step leaves the state at its shortest: an epoch's answers have acted, and the next
/// one's have not come.
pub(super) fn is_time(records: &[Record]) -> bool {
    records.iter().any(|record| matches!(record, Record::EpochClosed { .. }))
}

impl Coordinator {
    /// Shortens the ledger if that is worth it. A disk without room for a snapshot has room for
    /// records still: then it goes on as it was.
    pub(super) fn compact(&mut self) -> Result<(), ServiceError> {
        let when = self.settings.compaction;
        if !self.ledger.is_long(&when) {
            return Ok(());
        }
        let snapshot = self.snapshot()?;
        let (records, issued) = (snapshot.records, snapshot.issued.clone());
        match self.ledger.compact(snapshot, &when) {
            Ok(true) => {
                self.issued.go_on_from(&issued);
                tracing::info!(
                    records,
                    "the ledger begins with a snapshot now; what it stands for is kept beside it"
                );
            }
            Ok(false) => {}
            Err(error) if self.ledger.is_sound() => {
                tracing::warn!(%error, "the ledger could not be shortened, and goes on as it was");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        let state = self.colony.state();
        Snapshot::of(self.ledger.sequence(), state, self.issued.lately(state))
    }
}

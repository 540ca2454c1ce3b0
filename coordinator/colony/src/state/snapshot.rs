//! The state as bytes: equal states, equal bytes; and the record that a shortened ledger begins with.

use crate::{RULES, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uspx_domain::{Digest, TaskId};

/// What all records before this one come to: a ledger that begins with it needs none of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The uspx that wrote it, to be named where another one cannot read it.
    pub written_by: String,
    /// The rules of the colony that wrote it.
    pub rules: u32,
    /// The last record that it stands for.
    pub records: u64,
    /// The state's digest, as it was written.
    pub digest: Digest,
    /// What the records fold to.
    pub state: State,
    /// Tasks that were issued lately: answers to them are this ledger's, though the state may have
    /// forgotten them.
    pub issued: BTreeSet<TaskId>,
}

impl Snapshot {
    /// That of a ledger whose last record has the number `records`.
    ///
    /// # Errors
    /// As for [`State::snapshot`].
    pub fn of(
        records: u64,
        state: &State,
        issued: BTreeSet<TaskId>,
    ) -> Result<Self, SnapshotError> {
        Ok(Self {
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            rules: RULES,
            records,
            digest: state.digest()?,
            state: state.clone(),
            issued,
        })
    }

    /// Whether this version reads the state as it was written. One that has no place for a part of
    /// it would leave that part out without a word: its bytes give it away. So whatever is added to
    /// the state is left out of its bytes where there is none of it.
    ///
    /// # Errors
    /// As for [`State::snapshot`].
    pub fn is_as_written(&self) -> Result<bool, SnapshotError> {
        Ok(self.state.digest()? == self.digest)
    }
}

/// A snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be written.
    #[error("the state cannot be written down: {0}")]
    Write(#[from] rmp_serde::encode::Error),
    /// It is damaged, or of another version.
    #[error("the snapshot cannot be read, so replay the ledger from its start: {0}")]
    Read(#[from] rmp_serde::decode::Error),
}

impl State {
    /// The state as MessagePack with named fields; maps are ordered, so equal states give equal
    /// bytes.
    ///
    /// # Errors
    /// None is known; the encoder's signature has one.
    pub fn snapshot(&self) -> Result<Vec<u8>, SnapshotError> {
        Ok(rmp_serde::to_vec_named(self)?)
    }

    /// The state that a snapshot holds.
    ///
    /// # Errors
    /// Where the bytes are damaged or another version's; replay the ledger then.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }

    /// The digest of the snapshot's bytes.
    ///
    /// # Errors
    /// As for [`State::snapshot`].
    pub fn digest(&self) -> Result<Digest, SnapshotError> {
        Ok(Digest::of(&self.snapshot()?))
    }

    /// The digest of what the evidence says: trails, pheromone and mask, without the campaign's
    /// settings and tasks. It is what two replays of a ledger must agree on (invariant 1).
    ///
    /// # Errors
    /// As for [`State::snapshot`].
    pub fn evidence_digest(&self) -> Result<Digest, SnapshotError> {
        Ok(Digest::of(&rmp_serde::to_vec_named(&(&self.trails, &self.pheromone, &self.mask))?))
    }
}

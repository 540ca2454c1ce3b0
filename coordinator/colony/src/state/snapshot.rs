//! The state as bytes: equal states, equal bytes.

use crate::State;
use uspx_domain::Digest;

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

//! Progress of a transfer: bytes that never go backwards.

use std::sync::{Mutex, PoisonError};
use uspx_domain::BlobRef;

/// How far a transfer is, in bytes. Putting a blob counts them twice: sent, and read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferProgress {
    /// All of it.
    pub total: u64,
    /// Done: transferred now, or there already. Never goes backwards, and ends at `total`. Of a
    /// release or a pull it counts what is verified; of a single blob, parts of 8 MiB as they come.
    pub done: u64,
    /// The part of `done` that was not transferred now (resumed, or the same as in a release that
    /// is here). A rate or an ETA leaves it out.
    pub resumed: u64,
}

/// What is told of progress. Calls come one at a time, in order; keep it quick.
pub type OnProgress<'a> = &'a (dyn Fn(TransferProgress) + Send + Sync);

/// For those who do not want to know.
pub fn silent(_: TransferProgress) {}

/// Counts, and tells.
pub(crate) struct Meter<'a> {
    state: Mutex<TransferProgress>,
    tell: OnProgress<'a>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(total: u64, tell: OnProgress<'a>) -> Self {
        let start = TransferProgress { total, ..TransferProgress::default() };
        tell(start);
        Self { state: Mutex::new(start), tell }
    }

    /// For a blob that is sent and read back.
    pub(crate) fn twice(blob: &BlobRef, tell: OnProgress<'a>) -> Self {
        Self::new(blob.bytes.saturating_mul(2), tell)
    }

    /// Counts bytes transferred.
    pub(crate) fn moved(&self, bytes: u64) {
        self.count(bytes, 0);
    }

    /// Counts bytes that need no transfer.
    pub(crate) fn resumed(&self, bytes: u64) {
        self.count(bytes, bytes);
    }

    pub(crate) fn now(&self) -> TransferProgress {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells while it holds the state, so that what is told is in order.
    fn count(&self, done: u64, resumed: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done = state.done.saturating_add(done).min(state.total);
        state.resumed = state.resumed.saturating_add(resumed).min(state.done);
        (self.tell)(*state);
    }
}

//! What long work tells its keeper, and asks of it.

use crate::{ModelError, Result, Watch};

/// Told of progress as it is made; may answer that the work should end.
///
/// Leases, progress bars and Ctrl-C all hang on this one call.
pub trait Progress: Sync {
    /// `done` of `total` steps are done.
    ///
    /// # Errors
    /// [`ModelError::Stopped`] ends the work.
    fn report(&self, done: u64, total: u64) -> Result<()>;

    /// A model goes to work: `watch` tells of it between two reports.
    fn follow(&self, watch: Watch) {
        drop(watch);
    }
}

/// Nobody listens.
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}

impl<F: Fn(u64, u64) -> bool + Sync> Progress for F {
    fn report(&self, done: u64, total: u64) -> Result<()> {
        if self(done, total) { Ok(()) } else { Err(ModelError::Stopped) }
    }
}

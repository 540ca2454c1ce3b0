//! Progress of work that has several stages, told as that of one.

use uspx_model::{Progress, Watch};

/// The progress of one of several equal parts, told as that of all of them.
pub(crate) struct Stage<'a> {
    pub all: &'a dyn Progress,
    /// Parts done before it.
    pub before: u64,
    pub parts: u64,
}

impl Progress for Stage<'_> {
    fn report(&self, done: u64, total: u64) -> uspx_model::Result<()> {
        self.all.report(self.before * total + done, self.parts * total)
    }

    fn follow(&self, watch: Watch) {
        self.all.follow(watch);
    }
}

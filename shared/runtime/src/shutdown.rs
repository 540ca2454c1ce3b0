//! Ctrl-C and SIGTERM: the first asks everything to end cleanly, a second one ends the process at
//! once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A wish to end, shared by everything that runs. Clones and children hear of it too.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

/// What the shell sees of a process that was interrupted.
pub const INTERRUPTED: i32 = 130;

impl Shutdown {
    /// A wish that only [`Shutdown::cancel`] utters.
    pub fn new() -> Self {
        Self::default()
    }

    /// A wish that signals utter. To be called once, within a runtime.
    ///
    /// # Errors
    /// The process may not have signal handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        let this = Self::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let token = this.0.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if token.is_cancelled() {
                    std::process::exit(INTERRUPTED);
                }
                token.cancel();
            }
        });
        Ok(this)
    }

    /// Asks everything to end.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether the end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns when the end is asked for.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// A wish that hears of this one, and can be uttered alone.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_hears_its_parent_but_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (one, two) = (parent.child(), parent.child());
        one.cancel();
        assert!(one.is_cancelled() && !parent.is_cancelled() && !two.is_cancelled());
        parent.cancel();
        two.cancelled().await;
        assert!(two.is_cancelled());
    }
}

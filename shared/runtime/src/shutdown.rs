//! Ctrl-C and SIGTERM: the first asks everything to end cleanly, a second one ends the process at
//! once.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A wish to end, shared by everything that runs. Clones and children hear of it too.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    end: CancellationToken,
    /// The work that Ctrl-C ends first.
    work: Arc<Mutex<Option<CancellationToken>>>,
}

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
        let all = this.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => if all.interrupt_work() { continue },
                    _ = terminate.recv() => {}
                }
                if all.is_cancelled() {
                    std::process::exit(INTERRUPTED);
                }
                all.cancel();
            }
        });
        Ok(this)
    }

    /// Asks everything to end.
    pub fn cancel(&self) {
        self.end.cancel();
    }

    /// Whether the end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.end.is_cancelled()
    }

    /// Returns when the end is asked for.
    pub async fn cancelled(&self) {
        self.end.cancelled().await;
    }

    /// A wish that hears of this one, and can be uttered alone.
    pub fn child(&self) -> Self {
        Self { end: self.end.child_token(), work: Arc::default() }
    }

    /// A child for one piece of work: the next Ctrl-C ends it and nothing else. The one after that
    /// is meant for everything again.
    pub fn of_work(&self) -> Self {
        let work = self.child();
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work.end.clone());
        work
    }

    /// Ends the piece of work under way; whether there was one.
    fn interrupt_work(&self) -> bool {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.inspect(CancellationToken::cancel).is_some()
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

    #[test]
    fn an_interrupt_ends_the_work_and_the_next_one_everything() {
        let all = Shutdown::new();
        assert!(!all.interrupt_work(), "there is no work yet");
        let (first, second) = (all.of_work(), all.of_work());
        assert!(all.interrupt_work());
        assert!(second.is_cancelled() && !first.is_cancelled() && !all.is_cancelled());
        assert!(!all.interrupt_work(), "it is ending already");
        all.cancel();
        assert!(first.is_cancelled());
    }
}

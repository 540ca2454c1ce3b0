//! Workers whose machines fail rest for a while: longer each time, never for ever; a person's word
//! ends that at once.

use super::Coordinator;
use crate::ServiceError;
use crate::word::{self, Word};
use std::time::Duration;
use tokio::time::Instant;
use uspx_colony::{Ending, Event};
use uspx_domain::WorkerId;

/// The first rest; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(2);
/// The longest rest.
const LONGEST: Duration = Duration::from_secs(300);

/// How long a worker rests after so many failures of its machine one after another.
fn pause(strikes: u32) -> Duration {
    let times = 1u32.checked_shl(strikes.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST.saturating_mul(times).min(LONGEST)
}

impl Coordinator {
    pub(super) fn rest(&mut self, worker: WorkerId, strikes: u32) {
        let pause = pause(strikes);
        tracing::warn!(%worker, strikes, ?pause, "its machine fails: it rests, others go on");
        self.rests.insert(worker, Instant::now() + pause);
    }

    /// Ends the rests that are over.
    pub(super) async fn wake(&mut self) -> Result<Option<Ending>, ServiceError> {
        let now = Instant::now();
        let over = self.rests.iter().filter(|(_, until)| **until <= now);
        for worker in over.map(|(worker, _)| worker.clone()).collect::<Vec<_>>() {
            self.rests.remove(&worker);
            if let Some(ending) = self.event(Event::WorkerRested { worker }).await? {
                return Ok(Some(ending));
            }
        }
        Ok(None)
    }
}

impl Coordinator {
    /// Does what a person said.
    pub(super) async fn obey(&mut self) -> Result<Option<Ending>, ServiceError> {
        let Some(word) = word::take(&self.settings.state) else { return Ok(None) };
        tracing::warn!(?word, "a person's word");
        let event = match word {
            Word::Retry => Event::Retry,
            Word::Abandon => Event::Abandon,
            Word::Build => return self.event(Event::Build).await,
            Word::Hold => return self.event(Event::Hold).await,
            Word::Resume => return self.event(Event::Resume).await,
        };
        self.rests.clear();
        // What is being published is tried anew, or never.
        self.releases.shutdown().await;
        self.event(event).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_and_are_bounded() {
        let secs: Vec<u64> = [1, 2, 3, 8, 9, 40, u32::MAX].map(|n| pause(n).as_secs()).into();
        assert_eq!(secs, [2, 4, 8, 256, 300, 300, 300]);
    }
}

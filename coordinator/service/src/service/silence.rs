//! Who is silent, who hangs, and what nobody speaks. Whoever cannot be heard, or has nothing to do, is excused.

use super::{Coordinator, HELD_UP, PATIENCE};
use crate::ServiceError;
use tokio::time::Instant;
use uspx_colony::{Ending, Event};
use uspx_domain::{TaskId, WorkerId};

impl Coordinator {
    /// Who cannot be heard is not silent, and who has nothing to do has no progress to show.
    pub(super) fn listen(&mut self) {
        let now = Instant::now();
        let deaf = !self.bus.is_connected() || now - self.ticked > HELD_UP;
        self.ticked = now;
        if deaf {
            self.hearing = now;
        }
        let waiting_on = self.colony.waiting_on();
        let excused = deaf || !self.dispatch.is_idle();
        self.registry.excuse(|worker| excused || !waiting_on.contains(worker));
    }

    /// Workers that were heard of and are silent now; and, some time after a start, those that
    /// never were.
    pub(super) fn silent(&self) -> Vec<WorkerId> {
        if self.hearing.elapsed() <= self.settings.silence {
            return Vec::new();
        }
        let mut silent = self.registry.take_silent(self.settings.silence);
        silent.extend(self.colony.waiting_on().into_iter().filter(|w| !self.registry.knows(w)));
        silent.sort_unstable();
        silent.dedup();
        silent
    }

    /// Whether tasks have waited for too long for a worker that speaks them; since when is reckoned
    /// here.
    pub(super) fn is_patience_over(&mut self) -> bool {
        if self.colony.unspoken().is_empty() {
            self.spoken = Instant::now();
        }
        let over = self.spoken.elapsed() > PATIENCE;
        if over {
            self.spoken = Instant::now();
        }
        over
    }

    /// Invariant 4: without progress the bus delivers a task to the same worker again after one
    /// lease, and after two the ledger gives it to another.
    pub(super) async fn hung(
        &mut self,
        worker: WorkerId,
        current: Option<TaskId>,
    ) -> Result<Option<Ending>, ServiceError> {
        tracing::warn!(%worker, task = ?current, "a worker makes no progress: its tasks go to others");
        let out = self
            .colony
            .state()
            .tickets()
            .iter()
            .filter(|(_, t)| !t.is_settled() && t.is_out_at(&worker));
        let out: Vec<TaskId> =
            out.map(|(id, _)| *id).filter(|id| current.is_none_or(|c| c == *id)).collect();
        for task in out {
            let ended = self.event(Event::LeaseLost { task, worker: worker.clone() }).await?;
            if ended.is_some() {
                return Ok(ended);
            }
        }
        // Stuck in the middle of one, it gets to none of the others either.
        match current {
            Some(_) => self.event(Event::WorkerLost { worker }).await,
            None => Ok(None),
        }
    }
}

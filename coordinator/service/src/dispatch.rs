//! On its way: tasks to workers' queues, each kept in the outbox until the bus has it.

use crate::{PromptBook, ServiceError};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use uspx_artifact::{ArtifactError, Store, silent};
use uspx_bus::{Bus, BusError, QueueSpec};
use uspx_colony::{PlannedTask, State};
use uspx_domain::{TaskId, WorkerId};
use uspx_wire::pack_task;
use uspx_wire::subjects::{task_message_id, task_queue, worker_of_queue};

/// A task that is to be sent.
struct Parcel {
    task: PlannedTask,
    worker: WorkerId,
    attempt: u32,
}

/// Sends tasks, and takes them back.
pub(crate) struct Dispatch {
    bus: Arc<dyn Bus>,
    store: Store,
    lease: Duration,
    outbox: VecDeque<Parcel>,
    queues: HashSet<WorkerId>,
}

impl Dispatch {
    pub(crate) fn new(bus: Arc<dyn Bus>, store: Store, lease: Duration) -> Self {
        Self { bus, store, lease, outbox: VecDeque::new(), queues: HashSet::new() }
    }

    /// Makes the worker's queue, if this process has not yet.
    pub(crate) async fn open_queue(&mut self, worker: &WorkerId) -> Result<(), BusError> {
        if !self.queues.contains(worker) {
            let spec = QueueSpec { lease: self.lease, ..QueueSpec::new(task_queue(worker)) };
            self.bus.ensure(&spec).await?;
            self.queues.insert(worker.clone());
        }
        Ok(())
    }

    /// Deletes the worker's queue with all in it.
    pub(crate) async fn close_queue(&mut self, worker: &WorkerId) -> Result<(), BusError> {
        self.queues.remove(worker);
        self.bus.remove(&task_queue(worker)).await.map(drop)
    }

    /// Deletes the queues of workers that the ledger does not know: nobody's tasks are in them, and
    /// a worker that is there all the same gets its queue again with its first heartbeat. What
    /// cannot be deleted now is at the next start.
    pub(crate) async fn close_strays(&mut self, state: &State) {
        let queues = match self.bus.queues().await {
            Ok(queues) => queues,
            Err(error) => return tracing::warn!(%error, "the bus' queues could not be listed"),
        };
        let workers = queues.iter().filter_map(|q| worker_of_queue(q));
        for worker in workers {
            self.close_stray(&worker, state).await;
        }
    }

    /// Deletes the queue of a worker, where the ledger does not know it.
    pub(crate) async fn close_stray(&mut self, worker: &WorkerId, state: &State) {
        let mut attempts = state.tickets().values().flat_map(|t| &t.attempts);
        if state.accounts().contains_key(worker) || attempts.any(|a| a.worker == *worker) {
            return;
        }
        match self.close_queue(worker).await {
            Ok(()) => {
                tracing::info!(%worker, "removed the queue of a worker that the ledger does not know");
            }
            Err(error) => tracing::warn!(%error, %worker, "a stray queue stays"),
        }
    }

    /// Puts a task into the outbox.
    pub(crate) fn issue(&mut self, task: PlannedTask, worker: WorkerId, attempt: u32) {
        self.outbox.push_back(Parcel { task, worker, attempt });
    }

    /// Whether all that was issued is with the bus.
    pub(crate) fn is_idle(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Sends what is in the outbox, as far as the bus takes it; the rest waits for the next call.
    pub(crate) async fn flush(
        &mut self,
        state: &State,
        book: &PromptBook,
    ) -> Result<(), ServiceError> {
        // Each try would wait long for the connection, and the service with it.
        if !self.bus.is_connected() {
            return Ok(());
        }
        while let Some(parcel) = self.outbox.pop_front() {
            match self.send(&parcel, state, book).await {
                Ok(()) => {}
                Err(error) if passes(&error) => {
                    tracing::warn!(%error, task = %parcel.task.id, "a task waits in the outbox");
                    self.outbox.push_front(parcel);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        parcel: &Parcel,
        state: &State,
        book: &PromptBook,
    ) -> Result<(), ServiceError> {
        // It may have been answered by another worker while it waited here.
        let ticket = state.tickets().get(&parcel.task.id);
        let (Some(campaign), true) =
            (state.campaign(), ticket.is_some_and(|t| t.is_out_at(&parcel.worker)))
        else {
            return Ok(());
        };
        let task = parcel.task.attach(campaign, |id| book.get(id))?;
        let packed = pack_task(task)?;
        if let Some((_, content)) = packed.blob {
            self.store.put_blob(content, &silent).await?;
        }
        self.open_queue(&parcel.worker).await?;
        let id = task_message_id(parcel.task.id, parcel.attempt);
        self.bus.publish(&task_queue(&parcel.worker), &id, packed.message).await?;
        tracing::debug!(task = %parcel.task.id, work = parcel.task.work.name(), worker = %parcel.worker, "issued");
        Ok(())
    }

    /// Takes a task back from a worker's queue. What cannot be taken back does no harm: its answer
    /// is compared.
    pub(crate) async fn withdraw(&mut self, task: TaskId, worker: &WorkerId, state: &State) {
        self.outbox.retain(|p| p.task.id != task || p.worker != *worker);
        let attempts = state.tickets().get(&task).into_iter().flat_map(|t| &t.attempts);
        for attempt in attempts.filter(|a| a.worker == *worker) {
            let id = task_message_id(task, attempt.number);
            if let Err(error) = self.bus.withdraw(&task_queue(worker), &id).await {
                tracing::debug!(%error, %task, %worker, "a task could not be taken back");
            }
        }
    }
}

/// Whether an error is worth waiting for its end.
fn passes(error: &ServiceError) -> bool {
    match error {
        ServiceError::Bus(e) => e.is_retryable(),
        // Denied, full or away: whatever ails the store, its tasks wait for it.
        ServiceError::Artifact(e) => !matches!(e, ArtifactError::TooLarge { .. }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_denies_is_full_or_away_holds_tasks_up_and_ends_nothing() {
        let (store, key) = (String::from("s"), String::from("k"));
        let denied = ArtifactError::Denied { store: store.clone(), key, source: "expired".into() };
        let errors = [denied, ArtifactError::NoBucket { store }];
        assert!(errors.into_iter().all(|e| passes(&e.into())));
    }
}
